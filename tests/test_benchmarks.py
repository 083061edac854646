"""The benchmarks: FLOP by formula against numbers from elsewhere and XLA's count, a run of small cases, and what a comparison says."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import compare, flops, measure, updates
from pwm_jax import pwm

ROOT = Path(__file__).resolve().parents[1]


def test_the_formula_gives_the_operations_of_the_5m_updates():
    """Counted by others from the published networks at batch 64 and horizon 16: 41 GFLOP, 78 % of it the critics', and 9.1 GFLOP."""
    config = updates.config_of("5M-mt30", batch_size=64, horizon=16)
    policy, model = flops.policy_update(config), flops.model_update(config)
    assert sum(policy.values()) == pytest.approx(41e9, rel=0.01)
    assert policy["critics"] / sum(policy.values()) == pytest.approx(0.78, abs=0.01)
    assert sum(model.values()) == pytest.approx(9.1e9, rel=0.015)


def test_the_formula_agrees_with_xla_where_every_loop_has_one_turn():
    """XLA counts the body of a loop once, and elementwise operations too."""
    config = updates.config_of("1M", batch_size=256, horizon=1)
    config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, critic_passes=1, critic_minibatches=1))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(functools.partial(pwm.init_world_model, config), key)
    policy = jax.eval_shape(functools.partial(pwm.init_policy, config), key)
    model_update = jax.jit(functools.partial(pwm.update_world_model, config=config)).lower(state, updates.batch_of(config), key)
    policy_update = jax.jit(functools.partial(pwm.update_policy, config=config)).lower(policy, state.params, updates.starts_of(config), key)
    for lowered, counted in ((model_update, flops.model_update(config)), (policy_update, flops.policy_update(config))):
        assert 1.0 < lowered.cost_analysis()["flops"] / sum(counted.values()) < 1.15


def row(seconds: list[float], rate: float = 1e11, flop: float | None = 1e9, case: str = "policy_update") -> measure.Row:
    rates = [rate * factor for factor in (0.99, 1.0, 1.01)]
    return measure.Row(case, "5M-mt30", 64, 16, seconds, rates, 1e11, 1e10, flop, None, 1.0, 0, 0, 0)


def test_a_comparison_tells_changes_from_noise_and_from_a_slower_machine():
    rng = np.random.default_rng(1)
    times = lambda mean: (mean * rng.uniform(0.97, 1.03, 50)).tolist()  # noqa: E731
    old = [row(times(0.1)), row(times(0.1), flop=None, case="mppi_decision")]
    assert [c.verdict for c in compare.changes(old, [row(times(0.1)), row(times(0.1), flop=None, case="mppi_decision")])] == ["same"] * 2
    assert [c.verdict for c in compare.changes(old, [row(times(0.08))])] == ["faster"]
    assert [c.verdict for c in compare.changes(old, [row(times(0.12))])] == ["slower"]
    # On a machine of half the speed a program that takes twice as long is the same; without a count of operations nobody can tell.
    slow = [row(times(0.2), rate=5e10), row(times(0.2), flop=None, case="mppi_decision")]
    assert [c.verdict for c in compare.changes(old, slow)] == ["same", "slower"]
    assert old[0].fraction == pytest.approx(0.1, rel=0.02)
    assert "geometric mean" in compare.table(compare.changes(old, slow))


def test_a_run_writes_what_a_comparison_reads(tmp_path: Path):
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "benchmarks", "run", "--presets=1M", "--batch_sizes=4", "--horizon=2", "--seconds=0.1"]
    shown = subprocess.run(
        [*command, "--cases=imagine_backward,windows_on_disk", f"--json={path}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "GFLOP/s" in shown
    rows = compare.read(path)
    assert [r.case for r in rows] == ["imagine_backward", "windows_on_disk"]
    assert all(len(r.seconds) >= measure.MIN_SAMPLES and min(r.seconds) > 0 and r.peak_bytes > 50 << 20 for r in rows)
    assert rows[0].flop == sum(flops.imagination(updates.config_of("1M", 4, 2), backward=True).values())
    assert rows[0].fraction is not None
    assert 0 < rows[0].fraction < 1
    assert rows[1].flop is None
    assert "hardware" in json.loads(path.read_text())
    path.write_text("{}")
    with pytest.raises(ValueError, match="no file of `python -m benchmarks run --json`"):
        compare.read(path)


@pytest.mark.parametrize("wrong", ["--cases=policy", "--presets=6M"])
def test_a_mistyped_case_or_preset_is_named_before_anything_runs(wrong: str):
    done = subprocess.run([sys.executable, "-m", "benchmarks", "run", wrong], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"there is no {wrong[2 : -len(wrong.split('=')[1]) - 2]} {wrong.split('=')[1]}" in done.stderr

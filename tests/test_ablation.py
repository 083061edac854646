"""The study of settings: stages of every variant, models that variants share, rows, tables and correlations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.stats import spearmanr

from configs import debug, generalisation, regularisers
from experiments import ablation, launch
from pwm_jax.analysis import world_model
from pwm_jax.envs.tasks import UnknownTaskError
from pwm_jax.report import ablation as report
from pwm_jax.report import measurements
from pwm_jax.report.measurements import Measurement
from pwm_jax.training import members as training


def _config(**changes: Any) -> ConfigDict:
    config = debug.get_config()
    config.update(num_workers=1, tasks="pendulum-swingup")
    config.collect.sources = ConfigDict(dict(random=dict(kind="random", episodes=4)))
    config.model.update(enc_hidden=(), mlp_hidden=())  # these compile in a third of the time
    config.policy.update(actor_hidden=(), critic_hidden=(), num_critics=1)
    config.pretrain.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    config.extract.update(steps=4, log_every=2, eval_every=4, checkpoint_every=4)
    config.evaluate.episodes = 1
    config.sweep = ConfigDict(dict(study="regularisers", seeds=(1,), per_batch=1, processes=1, measure=True, publish=""))
    config.measure = ConfigDict(dict(windows=2, samples=4, chunk=2, horizon=3, directions=2, length=0.1))
    config.methods = ("extracted",)
    short = dict(policy=dict(horizon=2))
    config.variants = ConfigDict(dict(simnorm={}, short=short, relu=dict(model=dict(regulariser="relu", residual_dynamics=False))))
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config.lock()


def test_every_variant_is_measured_once_and_shares_what_models_it_can(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    with launch.stage(tmp_path, "ablation", _config()):
        ablation.main(_config(), tmp_path)
    rows = measurements.read_measurements(tmp_path / "regularisers.jsonl")
    assert [(row.setting["variant"], row.setting["seed"]) for row in rows] == [("relu", 1), ("short", 1), ("simnorm", 1)]
    of = {row.setting["variant"]: row.values for row in rows}
    assert set(of["relu"]) == {"return", "score", "share", *report.MEASURES.values()}
    assert of["relu"]["share"] == pytest.approx(of["relu"]["return"] / 1000)
    assert of["short"]["open_loop"] == of["simnorm"]["open_loop"] != of["relu"]["open_loop"]
    models = sorted(str(path.parent.relative_to(tmp_path / "models")) for path in tmp_path.glob("models/*/*/pretrain"))
    names = ("model.regulariser=relu,model.residual_dynamics=False", "model=unchanged")
    assert models == [f"{name}/seed_1" for name in names]
    assert "short" in capsys.readouterr().out
    assert (tmp_path / "figures" / "scores_over_measures.svg").exists()
    monkeypatch.setattr(ablation, "measure", None)  # would fail if anything were measured again
    ablation.main(_config(), tmp_path)
    assert measurements.read_measurements(tmp_path / "regularisers.jsonl") == rows


def test_variants_that_share_a_program_resume_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = dict(simnorm={}, warm=dict(model=dict(simnorm_temperature=4.0)), slow=dict(policy=dict(actor_lr=1e-5)))
    # A fingerprint of each model in the place of its measures, which take long to compile and are tested above.
    fingerprint = lambda params, *_: {"pendulum-swingup": {"open_loop": float(sum(np.abs(x).sum() for x in jax.tree.leaves(params)))}}  # noqa: E731
    monkeypatch.setattr(world_model, "measure", fingerprint)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    config = _config(variants=ConfigDict(variants), pretrain__checkpoint_every=2, extract__checkpoint_every=2)
    monkeypatch.setattr(report, "save_figures", lambda *_: None)
    monkeypatch.setattr(report, "summary", lambda *_: "")
    ablation.main(config, tmp_path / "whole")
    whole = measurements.read_measurements(tmp_path / "whole" / "regularisers.jsonl")
    of = {row.setting["variant"]: row.values for row in whole}
    assert of["simnorm"]["open_loop"] == of["slow"]["open_loop"] != of["warm"]["open_loop"]
    assert len(list((tmp_path / "whole" / "groups").iterdir())) == 1

    alone = _config(variants=ConfigDict(dict(warm=variants["warm"])))
    ablation.main(alone, tmp_path / "alone")
    (row,) = measurements.read_measurements(tmp_path / "alone" / "regularisers.jsonl")
    assert row.values == pytest.approx(of["warm"], rel=1e-3)

    calls = {"pretrain": 0, "extract": 0}
    chunks = {"pretrain": training._pretrain_chunk, "extract": training._extract_chunk}

    def counted(name: str, last: int) -> Any:
        def chunk(*arguments: Any) -> Any:
            calls[name] += 1
            if calls[name] > last:
                raise KeyboardInterrupt
            return chunks[name](*arguments)

        return chunk

    monkeypatch.setattr(training, "_pretrain_chunk", counted("pretrain", 9))
    monkeypatch.setattr(training, "_extract_chunk", counted("extract", 1))
    with pytest.raises(KeyboardInterrupt):
        ablation.main(config, tmp_path / "stopped")
    assert calls == {"pretrain": 2, "extract": 2}
    monkeypatch.setattr(training, "_extract_chunk", counted("extract", 9))
    ablation.main(config, tmp_path / "stopped")
    assert calls == {"pretrain": 2, "extract": 3}  # the models were there, and the first half of extraction
    resumed = measurements.read_measurements(tmp_path / "stopped" / "regularisers.jsonl")
    assert [(row.setting, row.values) for row in resumed] == [(row.setting, row.values) for row in whole]


def test_a_study_may_be_given_other_variants_and_refuses_changed_ones(tmp_path: Path) -> None:
    with launch.stage(tmp_path, "ablation", _config()):
        (tmp_path / "rows").touch()
    more = dict(_config().variants.to_dict(), another=dict(policy=dict(horizon=1)))
    del more["relu"]
    with launch.stage(tmp_path, "ablation", _config(variants=ConfigDict(more))):
        pass
    changed = dict(_config().variants.to_dict(), short=dict(policy=dict(horizon=3)))
    with (
        pytest.raises(launch.ConfigError, match=r"config\.variants\.short\.policy\.horizon was 2, is 3"),
        launch.stage(tmp_path, "ablation", _config(variants=ConfigDict(changed))),
    ):
        pass


def test_a_mistyped_variant_is_refused_before_any_work(tmp_path: Path) -> None:
    wrong = _config(variants=ConfigDict(dict(relu=dict(model=dict(regulariserr="relu")))))
    with pytest.raises(launch.ConfigError, match=r"unknown field config\.variants\.relu\.model\.regulariserr; did you mean config"):
        ablation.main(wrong, tmp_path)
    with pytest.raises(launch.ConfigError, match=r"config\.variants\.\w+: .*regulariser must be one of"):
        ablation.main(_config(variants=ConfigDict(dict(relu=dict(model=dict(regulariser="rlu"))))), tmp_path)
    with pytest.raises(ValueError, match="unknown variants rlu; there are relu, none"):
        regularisers.get_config("relu,rlu")
    assert not list(tmp_path.iterdir())


def _rows(error: dict[str, float], share: dict[str, float], seeds: tuple[int, ...] = (0, 1, 2)) -> list[Measurement]:
    values = dict.fromkeys(report.MEASURES.values(), 1.0)
    row = Measurement("regularisers", {"variant": "", "method": "extracted", "task": "a", "seed": 0}, values, "python x.py", "abc", "a CPU")
    return [
        dataclasses.replace(
            row,
            setting={"variant": v, "method": "extracted", "task": "a", "seed": seed},
            values=values | {"open_loop": error[v], "share": share[v]},
        )
        for v in error
        for seed in seeds
    ]


def test_rank_correlations_are_of_variants_and_only_where_they_are_defined() -> None:
    rows = _rows({"x": 1.0, "y": 2.0, "z": 3.0}, {"x": 0.1, "y": 0.2, "z": 0.9})
    found = report.correlations(rows)
    assert list(found) == ["open-loop error"]  # the other measures are equal in all variants
    assert (found["open-loop error"].value, found["open-loop error"].low) == (pytest.approx(1.0), pytest.approx(1.0))
    worse = report.correlations(_rows({"x": 3.0, "y": 2.0, "z": 1.0}, {"x": 0.1, "y": 0.2, "z": 0.9}))
    assert worse["open-loop error"].value == pytest.approx(-1.0)
    assert report.table(rows)[1][:3] == ["x", "0.10 [0.10, 0.10]", "1"]
    note = report.note(rows)
    assert "open-loop error 1.00 [1.00, 1.00]." in note
    assert "earns most: z 1.00." in note


def test_correlations_agree_with_scipy_and_their_interval_covers_other_variants_and_seeds() -> None:
    rng, names = np.random.default_rng(0), "abcdefgh"
    rows = []
    for seed in range(3):
        error, share = (dict(zip(names, rng.random(8).round(1).tolist(), strict=True)) for _ in range(2))
        rows += _rows(error, share, (seed,))
    single = [
        spearmanr(*([row.values[name] for row in rows if row.setting["seed"] == seed] for name in ("open_loop", "share"))).statistic
        for seed in range(3)
    ]
    found = report.correlations(rows)["open-loop error"]
    assert found.value == pytest.approx(np.mean(single))
    assert found.low < found.value - 0.2 < found.value + 0.2 < found.high  # of chance alone: it says little
    shuffled = report.correlations([*rows[12:], *rows[:12][::-1]])["open-loop error"]  # whatever the order of the rows
    assert (shuffled.value, shuffled.low, shuffled.high) == pytest.approx((found.value, found.low, found.high))


def test_the_best_variant_is_as_sure_as_its_seeds_agree() -> None:
    rows = [*_rows({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.42}, (0,)), *_rows({"a": 1.0, "b": 1.0}, {"a": 0.2, "b": 0.3}, (1,))]
    shares = report.best(rows)
    # Means of two draws: a 0.5, 0.35, 0.2 and b 0.42, 0.36, 0.3, each with chances 1/4, 1/2, 1/4.
    assert shares["b"] == pytest.approx(0.25 + 0.5 * 0.75, abs=0.06)
    assert list(report.best(_rows({"a": 1.0, "b": 2.0}, {"a": 0.1, "b": 0.9}))) == ["b", "a"]


def test_variants_are_compared_with_the_default() -> None:
    rows = _rows({"default": 1.0, "worse": 2.0}, {"default": 0.9, "worse": 0.4})
    assert report.table(rows)[0][:3] == ["variant", "return / largest", "against the default"]
    assert [line[2] for line in report.table(rows)[1:]] == ["", "worse (-0.50)"]


def test_variants_come_in_the_order_of_their_numbers_and_shared_models_are_not_shown(tmp_path: Path) -> None:
    names = ("horizon-16", "horizon-2", "default", "batch-256")
    rows = _rows(dict.fromkeys(names, 1.0), {name: 0.1 * index for index, name in enumerate(names)})
    shown = report.table(rows)
    assert [line[0] for line in shown[1:]] == ["default", "batch-256", "horizon-2", "horizon-16"]
    assert "open-loop error" not in shown[0]
    assert "medians" not in report.note(rows)
    assert "Rank correlation" not in report.note(rows)
    assert {path.stem for path in report.save_figures(rows, tmp_path)} == {"scores"}


def test_a_task_left_out_is_measured_with_every_share_of_its_data(tmp_path: Path) -> None:
    known = generalisation.get_config("cartpole-balance").variants
    assert list(known) == [f"cartpole-balance-{end}" for end in ("all", "few", "tenth", "unseen")]

    part = dict(task="pendulum-swingup", kept=0.5)
    config = _config(tasks="pendulum-swingup,mw-reach", extract__tasks=("pendulum-swingup",))
    with config.unlocked():
        config.collect.sources.random.episodes = 6
        config.online.update(
            tasks=("pendulum-swingup",), env_steps=16, envs_per_task=2, steps_per_epoch=4, seed_steps=8, replay_capacity=16,
            wm_updates=1, policy_updates=1, eval_every=16, checkpoint_every=16, save_replay=False, eval_episodes=1,
        )  # fmt: skip
        config.variants = ConfigDict({name: dict(subset={**part, "model_tasks": name}) for name in ("others", "own")})
        config.variants.others.methods = ("extracted", "pwm")
    ablation.main(config, tmp_path)
    rows = measurements.read_measurements(tmp_path / "regularisers.jsonl")
    found = [(row.setting["variant"], row.setting["method"]) for row in rows]
    assert found == [("others", "extracted"), ("others", "pwm"), ("own", "extracted")]
    assert {row.setting["task"] for row in rows} == {"pendulum-swingup"}
    assert len({row.values["open_loop"] for row in rows}) == 2  # two models
    assert all(row.values["share"] == pytest.approx(row.values["return"] / 1000) for row in rows)
    with pytest.raises(launch.ConfigError, match=r"config\.subset: kept must lie in \(0, 1\], not 0"):
        ablation.main(_config(subset=ConfigDict(dict(task="pendulum-swingup", kept=0.0, model_tasks="all"))), tmp_path)
    with pytest.raises(UnknownTaskError, match="pendulum-swingip"):
        ablation.main(_config(subset=ConfigDict(dict(task="pendulum-swingip", kept=0.5, model_tasks="all"))), tmp_path)


def test_both_kinds_of_policies_have_rows_of_their_own(tmp_path: Path) -> None:
    config = _config(tasks="pendulum-swingup,mw-reach", methods=("extracted", "generalist"))
    with config.unlocked():
        config.variants = ConfigDict(dict(one={}))
        config.generalist.update(config.extract)
    ablation.main(config, tmp_path)
    rows = measurements.read_measurements(tmp_path / "regularisers.jsonl")
    found = [(row.setting["method"], row.setting["task"]) for row in rows]
    assert found == [(method, task) for method in ("extracted", "generalist") for task in ("pendulum-swingup", "mw-reach")]
    assert [line[:2] for line in report.table(rows)] == [["variant", "method"], ["one", "extracted"], ["one", "generalist"]]
    with pytest.raises(launch.ConfigError, match=r"config\.methods must be some of extracted, generalist and pwm"):
        ablation.main(_config(methods=("mppi",)), tmp_path / "other")

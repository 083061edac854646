"""The launcher's files, and the code of docs/use_elsewhere.md run with them in real environments."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_models import policy_state, world_model_params

from configs import debug
from experiments import export, stages
from experiments.settings import ConfigError
from pwm_jax import checkpoint, envs, pwm
from pwm_jax.checkpoint import CheckpointError
from pwm_jax.envs.tasks import TaskSet
from pwm_jax.portable import load_policy
from pwm_jax.training.policies import PolicySet

PAGE = Path(__file__).resolve().parents[1] / "docs" / "use_elsewhere.md"
TASKS = TaskSet.from_names(["mw-drawer-close", "cartpole-swingup"])


def make_config(**changes):
    config = debug.get_config()
    config.tasks = ",".join(TASKS.names)
    config.export.update(formats=("npz", "stablehlo", "onnx"), **changes)
    return config


ALGORITHM = stages.algorithm_of(make_config(), TASKS)


def save_policies(directory: Path, task_id: list[int], seed: list[int], algorithm=ALGORITHM) -> None:
    """Policies with random parameters, as a stage would save them."""
    states = [policy_state(algorithm, number) for number in seed]
    policies = PolicySet(np.array(task_id, np.int32), np.array(seed, np.uint32), jax.tree.map(lambda *leaves: np.stack(leaves), *states))
    state = {"policies": policies, "wm_params": world_model_params(algorithm)}
    checkpoint.save(directory, 1, state, stages.policy_metadata(policies, algorithm, TASKS))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A directory with runs/quickstart, whose policies are exported."""
    root = tmp_path_factory.mktemp("root")
    workdir = root / "runs" / "quickstart"
    save_policies(workdir / "extract", [0, 1], [7, 7])
    export.main(make_config(), workdir)
    return root


def test_a_file_of_each_kind_for_every_policy(root, capsys):
    names = sorted(path.name for path in (root / "runs" / "quickstart" / "export").iterdir())
    assert names == sorted(f"{task}-seed7.{kind}" for task in TASKS.names for kind in ("npz", "stablehlo", "onnx"))
    policy = load_policy(root / "runs" / "quickstart" / "export" / "cartpole-swingup-seed7.npz")
    assert (policy.obs_dim, policy.action_dim, policy.control_steps) == (5, 1, 2)


@pytest.mark.parametrize("number", range(6))
def test_the_page_s_code_runs(root, monkeypatch, number):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(root)
    names: dict = {}
    exec(compile(blocks[number], f"{PAGE}, block {number}", "exec"), names)
    if "total" in names:
        # The same episode in the project's own environment, with `pwm.act` of the same parameters on padded observations.
        name = names["policy"].task
        env, task_id = envs.make(name, seed=0), TASKS.index(name)
        act = jax.jit(
            lambda obs: pwm.act(policy_state(ALGORITHM, 7).actor_params, world_model_params(ALGORITHM), obs, np.array([task_id]), ALGORITHM)
        )
        obs, _ = env.reset()
        total, over = 0.0, False
        while not over:
            action = np.asarray(act(np.pad(obs, (0, TASKS.obs_dim - len(obs)))[None].astype(np.float32)))[0]
            obs, reward, _, over, _ = env.step(action[: TASKS.specs[task_id].action_dim])
            total += reward
        assert names["total"] == pytest.approx(total, rel=1e-3)
        assert total > 0


def test_policies_of_other_stages(tmp_path):
    save_policies(
        tmp_path / "generalist",
        [0],
        [3],
        dataclasses.replace(ALGORITHM, policy=dataclasses.replace(ALGORITHM.policy, task_conditioned=True)),
    )
    export.main(make_config(source="generalist"), tmp_path)
    assert {path.stem for path in (tmp_path / "export").iterdir()} == {f"{name}-seed3" for name in TASKS.names}
    with pytest.raises(CheckpointError, match="single-task run"):
        export.main(make_config(source="single_task"), tmp_path)
    with pytest.raises(CheckpointError, match="extract"):
        export.main(make_config(), tmp_path)


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"config\.export\.source must be one of .*, not 'bc'"):
        export.main(make_config(source="bc"), tmp_path)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx needs the package onnx: pip install 'pwm_jax\[onnx\]'"):
        export.main(make_config(), tmp_path)

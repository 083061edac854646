"""Exported policies act as `pwm.act` does: in NumPy, in JAX, as StableHLO and as ONNX; damaged files are refused."""

import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from pwm_jax import export, pwm
from pwm_jax.portable import Layer, PolicyFileError, PortablePolicy, encoded, load_policy
from pwm_jax.types import TaskSpec
from tests.tiny_models import make_config, policy_state, world_model_params

TASK = TaskSpec("toy", task_id=2, suite="toy", obs_dim=4, action_dim=2, episode_length=10, max_return=1.0)  # padded to 5 and 3
CONFIGS = {
    "simnorm": make_config(dict(simnorm_temperature=0.7)),
    "none": make_config(dict(regulariser="none")),
    "relu": make_config(dict(regulariser="relu", simnorm_dim=3)),
    "spectral": make_config(dict(regulariser="spectral")),
    "normalised observations": make_config(dict(normalise_obs=True)),
    "conditioned on the task": make_config(task_conditioned=True),
    "without an embedding": make_config(dict(task_dim=0)),
    "in the simulator": make_config(dict(normalise_obs=True), dynamics="simulator"),
}


def exported(config) -> tuple[PortablePolicy, np.ndarray, np.ndarray]:
    """A policy, native observations, and the actions of `pwm.act` on them, padded."""
    wm_params, actor_params = dict(world_model_params(config)), policy_state(config).actor_params
    if config.model.normalise_obs:
        rng = np.random.default_rng(1)
        shape = (config.model.num_tasks, config.model.obs_dim)
        wm_params["obs_moments"] = {"mean": rng.normal(size=shape), "var": rng.uniform(0.1, 2.0, shape), "count": np.ones((shape[0], 1))}
        wm_params["obs_moments"] = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), wm_params["obs_moments"])
        # As of padding, which is always zero.
        wm_params["obs_moments"]["mean"] = wm_params["obs_moments"]["mean"].at[:, TASK.obs_dim :].set(0.0)
    obs = np.random.default_rng(0).normal(size=(7, TASK.obs_dim)).astype(np.float32)
    padded = np.pad(obs, ((0, 0), (0, config.model.obs_dim - TASK.obs_dim)))
    action = pwm.act(actor_params, wm_params, padded, jnp.full(7, TASK.task_id), config)
    return export.portable(actor_params, wm_params, config, TASK, seed=3, control_steps=2), obs, np.asarray(action)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_file_acts_as_the_policy_itself(name, tmp_path):
    policy, obs, action = exported(CONFIGS[name])
    np.testing.assert_array_equal(action[:, TASK.action_dim :], 0.0)
    wanted = action[:, : TASK.action_dim]
    (tmp_path / "policy.npz").write_bytes(encoded(policy))
    loaded = load_policy(tmp_path / "policy.npz")
    assert (loaded.task, loaded.seed, loaded.control_steps, loaded.obs_dim, loaded.action_dim) == ("toy", 3, 2, 4, 2)
    close = dict(rtol=0, atol=2e-6)
    found = loaded(obs)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, **close)
    np.testing.assert_allclose(loaded(obs[0]), wanted[0], **close)
    np.testing.assert_allclose(jax.jit(loaded)(obs), wanted, **close)
    program = jax.export.deserialize(bytearray(export.stablehlo(loaded)))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    session = onnxruntime.InferenceSession(export.onnx(loaded))
    for count in (1, 7):
        np.testing.assert_allclose(program.call(obs[:count]), wanted[:count], **close)
        np.testing.assert_allclose(session.run(["action"], {"observation": obs[:count]})[0], wanted[:count], **close)


def test_observations_are_checked_and_may_be_a_dictionary():
    policy, obs, action = exported(CONFIGS["simnorm"])
    first = {"position": obs[0, :1].astype(np.float64), "height": obs[0, 1], "velocity": obs[0, 2:]}
    np.testing.assert_allclose(policy(first), action[0, : TASK.action_dim], rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match=r"toy has observations of 4 numbers, not of shape \(7, 3\)"):
        policy(obs[:, :3])


def small() -> PortablePolicy:
    layers = Layer(np.ones((2, 4), np.float32), np.zeros(4, np.float32), "norm, simnorm", *np.ones((2, 4), np.float32))
    return PortablePolicy("toy", 0, 2, (layers, Layer(np.ones((4, 1), np.float32), np.zeros(1, np.float32))), simnorm_dim=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(kernel_1=np.ones((3, 1), np.float32)), r"kernel of layer 1 is not \(4, 1\) finite numbers"),
        (dict(bias_0=np.full(4, np.nan, np.float32)), "bias of layer 0"),
        (dict(scale_0=None), "scale of layer 0"),
        (dict(kernel_0=np.ones((2, 4))), "kernel of layer 0"),
        (dict(kernel_0=np.array([{}])), "Python objects"),
        (dict(about=None), "about"),
        (dict(version=2), "is a policy of version 2, this code reads 1"),
        (dict(format="else"), "is no file of a policy"),
        (dict(after=["norm, simnorm", "exec"]), "'exec'"),
        (dict(simnorm_dim=3), "groups of 3"),
        (dict(unknown=1), "unknown"),
    ],
)
def test_a_foreign_or_damaged_file_is_refused(change, message, tmp_path):
    path = tmp_path / "policy.npz"
    path.write_bytes(encoded(small()))
    assert load_policy(path).action_dim == 1
    with np.load(path) as data:
        content = dict(data)
    about = json.loads(str(content["about"]))
    arrays = {name: value for name, value in change.items() if name in content or name.startswith("kernel")}
    about |= {name: value for name, value in change.items() if name not in arrays}
    content = {name: value for name, value in (content | {"about": np.array(json.dumps(about))} | arrays).items() if value is not None}
    np.savez(path, **content)
    with pytest.raises(PolicyFileError, match=message):
        load_policy(path)


def test_the_file_is_read_without_jax(tmp_path):
    """What acts elsewhere needs NumPy alone."""

    (tmp_path / "policy.npz").write_bytes(encoded(small()))
    script = f"""
import sys
from pwm_jax.portable import load_policy
policy = load_policy({str(tmp_path / "policy.npz")!r})
print(policy([1.0, 2.0]).shape, [name for name in ("jax", "flax", "mujoco", "orbax") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "(1,) []\n"

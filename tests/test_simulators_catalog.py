"""The simulated tasks' table against the environments themselves, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pwm_jax.envs import EnvUnavailableError, UnknownTaskError
from pwm_jax.envs.simulators import SIMULATORS, make_env, simulator_facts
from pwm_jax.envs.simulators import make as make_module


def test_action_sizes_are_a_ladder() -> None:
    assert sorted(simulator_facts(name).action_dim for name in SIMULATORS) == [1, 1, 2, 3, 8, 12, 17, 21, 56, 80, 126, 290, 416]


@pytest.mark.parametrize("name", SIMULATORS)
def test_facts_are_those_of_the_environment(name: str) -> None:
    facts = simulator_facts(name)
    backend = "mujoco" if "mujoco" in facts.backends else facts.backends[0]
    env = make_env(name, backend)
    obs = jax.eval_shape(env.reset, jax.random.key(0)).obs
    assert (obs.shape, env.action_size, env.backend) == ((facts.obs_dim,), facts.action_dim, backend)
    assert make_env(name, backend) is env


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownTaskError, match="unknown simulated task 'mjx-humanoid-cmv': did you mean 'mjx-humanoid-cmu'"):
        make_env("mjx-humanoid-cmv")
    with pytest.raises(UnknownTaskError, match="there are brax-hopper, brax-ant"):
        simulator_facts("zzz")
    with pytest.raises(ValueError, match="mjx-quadruped has no backend 'spring': there are mjx, mujoco"):
        make_env("mjx-quadruped", "spring")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from pwm_jax.envs.simulators import models

    find_spec = models.importlib.util.find_spec
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None if name == "musclemimic_models" else find_spec(name))
    make_module._build.cache_clear()
    with pytest.raises(EnvUnavailableError, match=r"No module named 'musclemimic_models'.*pip install musclemimic-models"):
        make_env("muscle-legs")


def test_building_an_environment_prints_nothing() -> None:
    code = "from pwm_jax.envs.simulators import make_env; make_env('mjx-quadruped', 'mujoco')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


def test_stiffer_contacts_give_way_less() -> None:
    from brax import contact

    sunk = []
    for factor in ("-stiffness0.25", "", "-stiffness16"):
        env: Any = make_env(f"brax-hopper-generalized{factor}")
        state = jax.jit(env.reset)(jax.random.key(0))

        def fall(state: Any, _: None, env: Any = env) -> tuple[Any, Any]:
            state = env.step(state, jnp.zeros(3))
            return state, contact.get(env.sys, state.pipeline_state.x).dist.min()

        sunk.append(float(jax.jit(lambda state: jax.lax.scan(fall, state, length=40)[1])(state).min()))
    assert sunk[0] < 2 * sunk[1] < 4 * sunk[2] < 0, sunk


def test_contacts_too_stiff_for_the_time_step_are_refused() -> None:
    with pytest.raises(ValueError, match=r"brax-ant on generalized steps by 0\.01 s, too long for contacts 4 times as stiff: at most 1"):
        make_env("brax-ant-generalized-stiffness4")


@pytest.mark.parametrize("name", ["brax-ant-spring-stiffness4", "mjx-quadruped-mjx-stiffness2"])
def test_stiffness_is_refused_where_contacts_have_none(name: str) -> None:
    with pytest.raises(UnknownTaskError, match="only Brax's tasks on generalized or mjx"):
        simulator_facts(name)


def test_a_stiffness_is_a_positive_number() -> None:
    with pytest.raises(UnknownTaskError, match="after -stiffness comes a positive number"):
        simulator_facts("brax-ant-mjx-stiffness0")
    with pytest.raises(UnknownTaskError, match="after -stiffness comes a positive number"):
        simulator_facts("brax-ant-mjx-stiffness")

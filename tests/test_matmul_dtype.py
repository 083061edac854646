"""`matmul_dtype=bfloat16`: the matrix products are, parameters, losses and everything between the products are float32."""

import functools
from collections import Counter

import chex
import jax
import jax.extend.core
import numpy as np
import pytest

from pwm_jax import pwm
from tests.tiny_models import make_batch, make_config, make_starts, policy_state, world_model_params, world_model_state

Q_HEADS = dict(num_q=2, q_dropout=0.0, discounts=(0.9, 0.95, 0.99))


def in_both(**model):
    """The same configuration with float32 and with bfloat16 products."""
    return [make_config(model | dict(matmul_dtype=dtype), matmul_dtype=dtype) for dtype in ("float32", "bfloat16")]


def product_dtypes(function, *arguments):
    """Operand dtypes of all matrix products in the jaxpr of `function`, loops and branches included."""
    found = Counter()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.update({str(operand.aval.dtype) for operand in equation.invars})
        for inner in jax.extend.core.subjaxprs(jaxpr):
            walk(inner)

    walk(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def of_model(config):
    """The update of pre-training and its arguments."""
    return pwm.update_world_model, world_model_state(config), make_batch(config), jax.random.key(0)


def of_policy(config):
    """The update of extraction and its arguments."""
    return pwm.update_policy, policy_state(config), world_model_params(config), make_starts(config), jax.random.key(0)


UPDATES = pytest.mark.parametrize("update_of", [of_model, of_policy])


@UPDATES
def test_all_products_are_of_the_dtype(update_of):
    found = []
    for config in in_both():
        update, *arguments = update_of(config)
        found.append(product_dtypes(functools.partial(update, config=config), *arguments))
    wide, narrow = found
    assert set(wide) == {"float32"}
    assert set(narrow) == {"bfloat16"}
    assert sum(wide.values()) == sum(narrow.values()) > 10


@UPDATES
@pytest.mark.parametrize("model", [{}, dict(regulariser="spectral"), dict(regulariser="relu"), dict(regulariser="none"), Q_HEADS])
def test_an_update_is_that_of_float32_up_to_rounding(update_of, model):
    """bfloat16 has 8 bits, so that products of random numbers are right to about 1 %; a rollout's gradient gathers more."""
    found = []
    for config in in_both(**model):
        update, *arguments = update_of(config)
        found.append(jax.jit(update, static_argnames="config")(*arguments, config=config))
    (wide, metrics), (narrow, rounded) = found
    chex.assert_trees_all_equal_shapes_and_dtypes((wide, metrics), (narrow, rounded))
    for name, value in metrics.items():
        np.testing.assert_allclose(rounded[name], value, rtol=0.3 if "grad_norm" in name else 0.05, atol=0.02, err_msg=name)
    different = [name for name, value in metrics.items() if not np.array_equal(rounded[name], value)]
    assert len(different) > len(metrics) / 2

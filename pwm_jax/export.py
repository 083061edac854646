"""A trained policy for use elsewhere: a file for NumPy, StableHLO by `jax.export`, and ONNX.

What is padding or a constant of the task is folded away: the encoder's and the actor's first layers keep the rows of the task's own
observation, the task's embedding becomes part of their bias, and the last layer keeps the task's own actions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from pwm_jax import ops
from pwm_jax.config import Config
from pwm_jax.layers import SpectralLinear
from pwm_jax.portable import LAYER_NORM_EPSILON, OBS_CLIP, VARIANCE_FLOOR, After, Layer, PortablePolicy
from pwm_jax.types import Params, TaskSpec

_LAST: dict[str, After] = {"simnorm": "norm, simnorm", "none": "norm, mish", "relu": "", "spectral": ""}


def portable(actor_params: Params, wm_params: Params, config: Config, spec: TaskSpec, seed: int, control_steps: int) -> PortablePolicy:
    """The deterministic policy `pwm.act` of one task, its mean action, without what is another task's."""
    m, in_simulator = config.model, config.policy.dynamics == "simulator"
    embedding = None
    if m.task_dim and not in_simulator:
        embedding = np.asarray(ops.project_to_unit_ball(wm_params["task_embedding"][spec.task_id]))
    hidden: After = "relu" if m.regulariser == "relu" else "norm, mish"
    encoder = [] if in_simulator else _layers(wm_params["encoder"], hidden, _LAST[m.regulariser], m.regulariser == "spectral")
    actor = _layers({name: value for name, value in actor_params.items() if name != "log_std"}, "mish, norm", "")
    if encoder:
        encoder[0] = _folded(encoder[0], m.obs_dim, embedding)
    if config.policy.task_conditioned:
        actor[0] = _folded(actor[0], m.latent_dim, embedding)
    chain = [*encoder, *actor]
    chain[0] = chain[0]._replace(kernel=chain[0].kernel[: spec.obs_dim])
    chain[-1] = chain[-1]._replace(kernel=chain[-1].kernel[:, : spec.action_dim], bias=chain[-1].bias[: spec.action_dim])
    moments = {}
    if m.normalise_obs:
        kept = wm_params["obs_moments"]
        moments = {f"obs_{name}": np.asarray(kept[name][spec.task_id, : spec.obs_dim], np.float32) for name in ("mean", "var")}
    return PortablePolicy(
        task=spec.name,
        seed=seed,
        control_steps=control_steps,
        layers=tuple(chain),
        simnorm_dim=m.simnorm_dim,
        simnorm_temperature=float(m.simnorm_temperature),
        **moments,
    )


def _layers(params: Params, hidden: After, last: After, spectral: bool = False) -> list[Layer]:
    """The layers of an MLP of `pwm_jax.layers` or of an actor."""
    count = sum(name.startswith("linear_") for name in params)
    found = []
    for i in range(count):
        linear, norm = params[f"linear_{i}"], params.get(f"norm_{i}", {})
        kernel = linear["kernel"]
        if spectral and i == count - 1:
            without_bias = {"params": {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}}
            kernel = SpectralLinear(kernel.shape[1]).apply(without_bias, jnp.eye(kernel.shape[0]))
        arrays = [np.asarray(x, np.float32) if x is not None else None for x in (norm.get("scale"), norm.get("bias"))]
        found.append(
            Layer(np.asarray(kernel, np.float32), np.asarray(linear["bias"], np.float32), last if i == count - 1 else hidden, *arrays)
        )
    return found


def _folded(layer: Layer, inputs: int, embedding: np.ndarray | None) -> Layer:
    """A first layer whose inputs beyond the first `inputs` are the task's embedding, without these."""
    if embedding is None:
        return layer
    return layer._replace(kernel=layer.kernel[:inputs], bias=layer.bias + embedding @ layer.kernel[inputs:])


def stablehlo(policy: PortablePolicy) -> bytes:
    """The policy as StableHLO for CPU, GPU and TPU, for `jax.export.deserialize`: actions [B, A] of observations [B, O] for any B."""
    (batch,) = jax.export.symbolic_shape("batch")
    obs = jax.ShapeDtypeStruct((batch, policy.obs_dim), jnp.float32)
    return bytes(jax.export.export(jax.jit(policy), platforms=("cpu", "cuda", "tpu"))(obs).serialize())


def onnx(policy: PortablePolicy) -> bytes:
    """The policy as an ONNX model: `action` [B, A] of `observation` [B, O] for any B. Needs the package onnx."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []
    last = "observation"

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def add(operation: str, *others: str, **attributes: Any) -> None:
        nonlocal last
        output = f"x{len(nodes)}"
        nodes.append(helper.make_node(operation, [last, *others], [output], **attributes))
        last = output

    if policy.obs_mean is not None and policy.obs_var is not None:
        add("Sub", constant("obs_mean", policy.obs_mean))
        add("Div", constant("obs_std", np.sqrt(policy.obs_var + np.float32(VARIANCE_FLOOR))))
        add("Clip", *(constant(f"clip_{sign:+.0f}", np.array(sign * OBS_CLIP, np.float32)) for sign in (-1, 1)))
    for i, layer in enumerate(policy.layers):
        add("MatMul", constant(f"kernel_{i}", layer.kernel))
        add("Add", constant(f"bias_{i}", layer.bias))
        for name in filter(None, layer.after.split(", ")):
            if name == "norm":
                assert layer.scale is not None
                assert layer.shift is not None
                scale, shift = constant(f"scale_{i}", layer.scale), constant(f"shift_{i}", layer.shift)
                add("LayerNormalization", scale, shift, axis=-1, epsilon=LAYER_NORM_EPSILON)
            elif name == "simnorm":
                width = layer.bias.shape[0]
                add("Div", constant(f"temperature_{i}", np.array(policy.simnorm_temperature, np.float32)))
                add("Reshape", constant(f"groups_{i}", np.array([-1, width // policy.simnorm_dim, policy.simnorm_dim])))
                add("Softmax", axis=-1)
                add("Reshape", constant(f"width_{i}", np.array([-1, width])))
            else:
                add({"mish": "Mish", "relu": "Relu"}[name])
    add("Tanh")
    nodes[-1].output[0] = "action"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("observation", policy.obs_dim), ("action", policy.action_dim))
    ]
    graph = helper.make_graph(nodes, f"{policy.task}, seed {policy.seed}", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="pwm_jax")
    checker.check_model(model)
    return bytes(model.SerializeToString())

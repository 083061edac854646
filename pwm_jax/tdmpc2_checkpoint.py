"""TD-MPC2's and PWM's published checkpoints: their parameters in this project's names and back.

Read are the layouts of 2023 (`_Qs.params.0` .. `9`) and the present one (`_Qs.params.0.weight`), with `_encoder.state.0` or, as PWM's own
code renames it, `_encoder.0`; written is the layout of 2023, which PWM reads and present TD-MPC2 converts as it loads. Weights are stored
(out, in) there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pwm_jax import tdmpc2, torch_archive, torch_writer
from pwm_jax.config import ModelConfig
from pwm_jax.networks import WorldModel
from pwm_jax.types import Params

OPAQUE = ("pathlib", "omegaconf", "typing.Any", "collections.defaultdict")  # what the official files' configurations are made of
SLOTS = ("weight", "bias", "ln.weight", "ln.bias")
_IGNORED = re.compile(r"_detach_Qs|.*\.module\.|.*__batch_size$|.*__device$")


class CheckpointFormatError(ValueError):
    """A file that is no TD-MPC2 world model, or a model that cannot be written as one; names what does not fit."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """A checkpoint in this project's terms; `target_q` is None where `model.num_q` is 0, `ignored` the keys without a place here.

    `stored_range`: the file tells the range of the prior's log-std.
    """

    model: ModelConfig
    params: dict[str, Params]
    target_q: Params | None
    ignored: tuple[str, ...]
    stored_range: bool


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint's `model` entry (or of the file itself), by their names there, memory-mapped.

    Raises:
        ArchiveError: the file is missing, damaged, foreign, or holds what would run code.
        CheckpointFormatError: it holds no state dictionary.
    """
    torch_archive.verify(path)
    content = torch_archive.load(path, opaque=OPAQUE)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any(isinstance(key, str) and key.startswith("_dynamics.") for key in state):
        raise CheckpointFormatError(f"{path} holds no state dictionary of a model: it is no TD-MPC2 or PWM checkpoint")
    return {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, np.ndarray)}


def tree_of(
    state: Mapping[str, np.ndarray], action_dims: tuple[int, ...], discounts: tuple[float, ...], with_q: bool = True, **model: Any
) -> Imported:
    """Rename and transpose a checkpoint's arrays, with the architecture that their shapes tell.

    Args:
        action_dims, discounts: of each task, in the order of the embedding's rows.
        with_q: False leaves Q heads and prior out; they are also left out, and named in `ignored`, where the file lacks them or has
            them in a layout that is not known.
        model: ModelConfig fields that neither shapes nor the file tell, such as `simnorm_dim` and `reward_space`.

    Raises:
        CheckpointFormatError: a key is missing, a shape contradicts another, or the tasks are not as many as the embedding's rows.
    """
    state = {re.sub(r"^_encoder\.state\.", "_encoder.", key): value for key, value in state.items()}
    used: set[str] = set()
    networks = {"encoder": "_encoder", "dynamics_0": "_dynamics", "reward_head": "_reward"}
    params: dict[str, Params] = {name: _network(state, prefix, used) for name, prefix in networks.items()}
    embedding = _take(state, "_task_emb.weight", used)
    params["task_embedding"] = np.asarray(embedding)
    if len(embedding) != len(action_dims):
        raise CheckpointFormatError(f"the checkpoint is of {len(embedding)} tasks, {len(action_dims)} were named: name its own tasks")
    widths = {name: _widths(params[name]) for name in networks}
    (obs_in, *enc_hidden, latent), (step_in, *hidden, _) = widths["encoder"], widths["dynamics_0"]
    task_dim, num_bins = embedding.shape[1], widths["reward_head"][-1]
    action_dim = step_in - latent - task_dim
    expected = dict(dynamics_0=[step_in, *hidden, latent], reward_head=[step_in, *hidden, num_bins])
    if obs_in <= task_dim or action_dim < max(action_dims) or any(widths[name] != sizes for name, sizes in expected.items()):
        raise CheckpointFormatError(
            f"layer sizes {widths} with a task embedding of {task_dim} are those of no TD-MPC2 model of these tasks"
        )
    q: dict[str, Params] | None = None
    if with_q:
        candidate: set[str] = set()
        try:
            prior, heads, targets = (
                _network(state, "_pi", candidate),
                _heads(state, "_Qs", candidate),
                _heads(state, "_target_Qs", candidate),
            )
            q_widths, prior_widths = _widths(heads), [latent + task_dim, *hidden, 2 * action_dim]
            if (
                len(heads["linear_0"]["bias"]) > 1
                and q_widths == [step_in, *hidden, num_bins] == _widths(targets)
                and _widths(prior) == prior_widths
            ):
                q, used = dict(prior=prior, q=heads, target=targets), used | candidate
        except CheckpointFormatError:
            pass
    used |= {key for key in ("_action_masks", "log_std_min", "log_std_dif") if key in state}
    if q and "log_std_min" in state:
        low = float(state["log_std_min"])
        model |= dict(prior_log_std_low=low, prior_log_std_high=low + float(state["log_std_dif"]))
    config = ModelConfig(
        obs_dim=obs_in - task_dim,
        action_dim=action_dim,
        action_dims=action_dims,
        discounts=discounts,
        task_dim=task_dim,
        enc_hidden=tuple(enc_hidden),
        mlp_hidden=tuple(hidden),
        latent_dim=latent,
        num_bins=num_bins,
        num_q=len(q["q"]["linear_0"]["bias"]) if q else 0,
        **model,
    )
    if q:
        params |= {"q": q["q"], "prior": q["prior"]}
    ignored = tuple(key for key in state if key not in used and not _IGNORED.match(key))
    imported = Imported(config, params, q["target"] if q else None, ignored, stored_range="log_std_min" in state)
    _check_shapes(imported)
    if "_action_masks" in state and state["_action_masks"].sum(-1).tolist() != list(action_dims):
        raise CheckpointFormatError(
            f"the checkpoint's tasks have {state['_action_masks'].sum(-1).astype(int).tolist()} actions, those named {list(action_dims)}: "
            "name its own tasks in its order"
        )
    return imported


def _check_shapes(imported: Imported) -> None:
    """Raise CheckpointFormatError unless every parameter has the shape of a model of the inferred architecture."""
    m = imported.model

    def fresh(key: jax.Array) -> tuple[Params, Params]:
        params = WorldModel(m).init(key, jnp.zeros((1, m.obs_dim)), jnp.zeros((1, m.action_dim)), jnp.zeros((1,), jnp.int32))["params"]
        added = tdmpc2.init_params(m, key) if m.num_q else {}
        return params | added, added.get("q")

    wanted = jax.eval_shape(fresh, jax.eval_shape(lambda: jax.random.key(0)))
    shapes = [{jax.tree_util.keystr(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (
        wanted, (imported.params, imported.target_q)
    )]  # fmt: skip
    different = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if different:
        name = different[0]
        raise CheckpointFormatError(f"parameter {name} has shape {shapes[1].get(name)}, a model of these sizes {shapes[0].get(name)}")


def _take(state: Mapping[str, np.ndarray], key: str, used: set[str]) -> np.ndarray:
    if key not in state:
        raise CheckpointFormatError(f"the checkpoint has no {key}: it is no multi-task TD-MPC2 or PWM world model")
    used.add(key)
    value = state[key]
    if value.dtype != np.float32 or not np.isfinite(value).all():
        raise CheckpointFormatError(f"{key} is {value.dtype} or holds non-finite values; the parameters of a model are finite float32")
    return value


def _layer(weight: np.ndarray, bias: np.ndarray, index: int, norm: list[np.ndarray]) -> dict[str, Params]:
    if weight.ndim < 2 or len(norm) == 1:
        raise CheckpointFormatError(f"layer {index} has a weight of shape {weight.shape} and {len(norm)} of two LayerNorm parameters")
    layer = {f"linear_{index}": {"kernel": np.ascontiguousarray(np.swapaxes(weight, -1, -2)), "bias": np.asarray(bias)}}
    if norm:
        layer[f"norm_{index}"] = {"scale": np.asarray(norm[0]), "bias": np.asarray(norm[1])}
    return layer


def _network(state: Mapping[str, np.ndarray], prefix: str, used: set[str]) -> Params:
    """`<prefix>.{i}.weight`, `.bias`, `.ln.weight`, `.ln.bias` as the parameters of an `MLP`."""
    params: dict[str, Params] = {}
    index = 0
    while index == 0 or f"{prefix}.{index}.weight" in state:
        slots = [slot for slot in SLOTS if slot in SLOTS[:2] or f"{prefix}.{index}.{slot}" in state]
        weight, bias, *norm = (_take(state, f"{prefix}.{index}.{slot}", used) for slot in slots)
        params |= _layer(weight, bias, index, norm)
        index += 1
    return params


def _heads(state: Mapping[str, np.ndarray], prefix: str, used: set[str]) -> Params:
    """A stacked ensemble: parameter n of 2023 is slot n % 4 of layer n // 4; the present layout names layer and slot."""
    present = {key: value for key, value in state.items() if re.fullmatch(rf"{prefix}(\.|_)params\.\d+", key)}
    if not present:
        layout = f"{prefix}.params" if f"{prefix}.params.0.weight" in state else f"{prefix}_params"
        return _network(state, layout, used)
    named = {f"{prefix}.{int(key.rsplit('.', 1)[1]) // 4}.{SLOTS[int(key.rsplit('.', 1)[1]) % 4]}": value for key, value in present.items()}
    used.update(present)
    return _network(named, prefix, set())


def _widths(params: Params) -> list[int]:
    """Input size and the output size of every layer; CheckpointFormatError where one layer does not fit the next."""
    shapes = [params[f"linear_{index}"]["kernel"].shape[-2:] for index in range(sum(name.startswith("linear") for name in params))]
    sizes = [shapes[0][0], *(out for _, out in shapes)]
    if [size for size, _ in shapes] != sizes[:-1]:
        raise CheckpointFormatError(f"layers of sizes {shapes} do not follow one another")
    return sizes


# ------------------------------------------------------------------------------------------------------------------------ writing


def write(path: str | Path, model: ModelConfig, params: Mapping[str, Params], target_q: Params | None = None) -> None:
    """Write a model as TD-MPC2's checkpoint of 2023: {"model": state dictionary}.

    Without Q heads PWM's code loads the file, TD-MPC2's own does not, which wants them.

    Raises:
        CheckpointFormatError: TD-MPC2 has no place for this architecture; names the fields that differ.
    """
    required = dict(regulariser="simnorm", simnorm_temperature=1.0, reward_head="two_hot", num_bins=101, bin_low=-10.0, bin_high=10.0)
    required |= dict(termination_head=False, model_ensemble=1, residual_dynamics=False, normalise_obs=False, simnorm_dim=8)
    other = {name: getattr(model, name) for name, value in required.items() if getattr(model, name) != value}
    if len(model.mlp_hidden) != 2 or len({*model.mlp_hidden}) > 1 or len({*model.enc_hidden}) > 1:
        other |= dict(mlp_hidden=model.mlp_hidden, enc_hidden=model.enc_hidden)
    if other or not model.task_dim:
        raise CheckpointFormatError(
            f"TD-MPC2 has no place for a model with {other or dict(task_dim=0)}; its models have {required}, two layers of one width in "
            "mlp_hidden, and layers of one width in enc_hidden"
        )
    state = {"_task_emb.weight": params["task_embedding"]}
    networks = {"encoder": "_encoder.state", "dynamics_0": "_dynamics", "reward_head": "_reward", "prior": "_pi"}
    for name, prefix in networks.items():
        if name in params:
            state |= {f"{prefix}.{index}.{SLOTS[slot]}": value for index, slot, value in _slots(params[name])}
    if target_q is not None:
        for prefix, heads in (("_Qs", params["q"]), ("_target_Qs", target_q)):
            state |= {f"{prefix}.params.{4 * index + slot}": value for index, slot, value in _slots(heads)}
    torch_writer.save(path, "model", {key: np.asarray(value) for key, value in state.items()})


def _slots(params: Params) -> Iterator[tuple[int, int, np.ndarray]]:
    """Layer, slot and array in TD-MPC2's order and (out, in) weights."""
    for index in range(sum(name.startswith("linear") for name in params)):
        linear, norm = params[f"linear_{index}"], params.get(f"norm_{index}")
        yield index, 0, np.swapaxes(np.asarray(linear["kernel"]), -1, -2)
        yield index, 1, np.asarray(linear["bias"])
        if norm is not None:
            yield index, 2, np.asarray(norm["scale"])
            yield index, 3, np.asarray(norm["bias"])

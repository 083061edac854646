"""Published checkpoint layouts: recorded outputs through an imported model, and export that says the same as the original file."""

from __future__ import annotations

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pwm_jax import tdmpc2, tdmpc2_checkpoint, torch_archive, torch_writer
from pwm_jax.networks import WorldModel
from pwm_jax.tdmpc2_checkpoint import CheckpointFormatError, Imported

FIXTURES = Path(__file__).parent / "fixtures" / "tdmpc2"
OLD, NEW = FIXTURES / "tdmpc2_checkpoint_2023.pt", FIXTURES / "tdmpc2_checkpoint_new.pt"
DISCOUNTS = (0.99,) * 4


def outputs() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "tdmpc2_checkpoint_outputs.npz") as data:
        return dict(data)


def read(path: Path, **options: Any) -> Imported:
    dims = tuple(outputs()["action_dims"].tolist())
    return tdmpc2_checkpoint.tree_of(tdmpc2_checkpoint.read_state(path), dims, DISCOUNTS, **options)


@pytest.mark.parametrize("path", [OLD, NEW], ids=["2023", "present"])
def test_an_imported_model_gives_the_recorded_outputs(path: Path) -> None:
    data, imported = outputs(), read(path, mask_actions=False)  # recorded with actions in all components
    model, params = WorldModel(imported.model), imported.params
    task_id, action = jnp.asarray(data["task"], jnp.int32), data["action"]
    apply = lambda *arguments, method: model.apply({"params": params}, *arguments, method=method)  # noqa: E731
    z = apply(data["obs"], task_id, method="encode")
    x = apply(z, action, task_id, method="step_input")
    prior_input = apply(z, task_id, method="with_task")
    actual = {
        "z": z,
        "next_z": apply(z, action, task_id, method="next")[0],
        "reward_logits": apply(z, action, task_id, method="reward_output"),
        "q_logits": tdmpc2.q_logits(params["q"], x, imported.model),
        "pi_raw": tdmpc2._prior(imported.model).apply({"params": params["prior"]}, prior_input),
    }
    for name, value in actual.items():
        np.testing.assert_allclose(np.asarray(value), data[name], rtol=0, atol=1e-5, err_msg=name)
    assert imported.ignored == ()


def test_both_layouts_hold_the_same_model() -> None:
    old, new = read(OLD), read(NEW)
    assert jax.tree.all(jax.tree.map(np.array_equal, (old.params, old.target_q), (new.params, new.target_q)))
    assert (new.model.prior_log_std_low, new.model.prior_log_std_high) == (-10.0, 2.0)  # the present layout stores them
    assert (old.model.prior_log_std_low, old.model.prior_log_std_high) == (-5.0, 0.5)


def test_pwms_own_key_names_and_unknown_q_keys() -> None:
    """PWM's code drops `state.` from encoder keys and whatever has `_pi` or `_Qs`; its released files hold Q keys of unknown layout."""
    state = {key.replace("_encoder.state.", "_encoder."): value for key, value in tdmpc2_checkpoint.read_state(OLD).items()}
    foreign = {("_Qs.mystery" + key.removeprefix("_Qs") if key.startswith("_Qs") else key): value for key, value in state.items()}
    dims = tuple(outputs()["action_dims"].tolist())
    imported = tdmpc2_checkpoint.tree_of(foreign, dims, DISCOUNTS)
    assert imported.model.num_q == 0
    assert imported.target_q is None
    assert imported.params.keys() == {"encoder", "dynamics_0", "reward_head", "task_embedding"}
    assert {key for key in state if key.startswith(("_pi", "_target_Qs"))} < set(imported.ignored)
    whole = tdmpc2_checkpoint.tree_of(state, dims, DISCOUNTS)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole.params, read(OLD).params))


def test_q_heads_can_be_left_out() -> None:
    imported = read(NEW, with_q=False)
    assert imported.model.num_q == 0
    assert any(key.startswith("_Qs") for key in imported.ignored)


class _Recorder(pickle.Unpickler):
    """Python's own unpickler, with every name as a function that records its call."""

    def find_class(self, module: str, name: str) -> Any:
        return lambda *arguments: (f"{module}.{name}", *arguments) if arguments else {}

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, *rest = pid
        return (kind, storage(0)[0], key, *rest)


def calls(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return _Recorder(io.BytesIO(archive.read(name))).load()["model"]


def test_an_export_says_what_the_original_says(tmp_path: Path) -> None:
    """Same names, same order, same tensor descriptions, same bytes as the file that torch wrote."""
    imported = read(OLD)
    path = tmp_path / "exported.pt"
    tdmpc2_checkpoint.write(path, imported.model, imported.params, imported.target_q)
    assert list(calls(path).items()) == list(calls(OLD).items())
    original, exported = (torch_archive.load(p, opaque=("pathlib",))["model"] for p in (OLD, path))
    assert all(np.array_equal(original[key], exported[key]) for key in original)
    torch_archive.verify(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    again = tmp_path / "exported"
    again.mkdir()
    tdmpc2_checkpoint.write(again / "exported.pt", imported.model, imported.params, imported.target_q)
    assert (again / "exported.pt").read_bytes() == path.read_bytes()


def test_storages_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch_writer.save(path, "model", {"x": np.arange(3, dtype=np.float32), "y": np.arange(5), "z": np.ones((), np.float32)})
    loaded = torch_archive.load(path)["model"]
    assert loaded["x"].tolist() == [0, 1, 2]
    assert loaded["y"].tolist() == [0, 1, 2, 3, 4]
    assert loaded["y"].dtype == np.int64
    with zipfile.ZipFile(path) as archive:
        content = path.read_bytes()
        for info in archive.infolist():
            extra = int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
            assert (info.header_offset + 30 + len(info.filename) + extra) % 64 == 0
    with pytest.raises(TypeError, match="float64 are not written"):
        torch_writer.save(path, "model", {"x": np.zeros(3)})
    assert torch_archive.load(path)["model"]["x"].tolist() == [0, 1, 2]  # the older file is whole


def test_an_export_without_heads_has_none(tmp_path: Path) -> None:
    imported = read(OLD, with_q=False)
    tdmpc2_checkpoint.write(tmp_path / "a.pt", imported.model, imported.params)
    keys = tdmpc2_checkpoint.read_state(tmp_path / "a.pt").keys()
    assert {key.split(".")[0] for key in keys} == {"_task_emb", "_encoder", "_dynamics", "_reward"}


def test_files_that_are_no_such_model_are_refused(tmp_path: Path) -> None:
    state = tdmpc2_checkpoint.read_state(OLD)
    dims = tuple(outputs()["action_dims"].tolist())

    def refused(changed: dict[str, np.ndarray], message: str, dims: tuple[int, ...] = dims) -> None:
        with pytest.raises(CheckpointFormatError, match=message):
            tdmpc2_checkpoint.tree_of(changed, dims, (0.99,) * len(dims))

    refused({key: value for key, value in state.items() if key != "_dynamics.0.bias"}, "has no _dynamics.0.bias")
    refused(state, "is of 4 tasks, 3 were named", dims[:3])
    refused(state | {"_dynamics.1.weight": np.zeros((40, 39), np.float32)}, "do not follow one another")
    refused(state | {"_reward.0.bias": np.full(40, np.nan, np.float32)}, "_reward.0.bias is float32 or holds non-finite")
    refused(state | {"_task_emb.weight": np.zeros((4, 50), np.float32)}, "of no TD-MPC2 model of these tasks")
    with pytest.raises(torch_archive.ArchiveError, match=r"nothing\.pt"):
        tdmpc2_checkpoint.read_state(tmp_path / "nothing.pt")
    refused({key: value for key, value in state.items() if key != "_dynamics.0.ln.bias"}, "1 of two LayerNorm parameters")
    refused(state | {"_dynamics.0.weight": np.zeros(40, np.float32)}, r"weight of shape \(40,\)")
    refused(state | {"_reward.1.bias": np.zeros(39, np.float32)}, r"reward_head.*linear_1.*bias.*has shape \(39,\), .*\(40,\)")
    few = {key: value[:2] if key.startswith("_target_Qs") else value for key, value in state.items()}
    refused(few, r"has shape \(2, .*, a model of these sizes \(5, ")
    lone = {key: value[:1] if "_Qs" in key else value for key, value in state.items()}
    assert tdmpc2_checkpoint.tree_of(lone, dims, DISCOUNTS).model.num_q == 0  # one head is no ensemble
    with pytest.raises(CheckpointFormatError, match=r"tasks have \[6, 2, 1, 4\] actions, those named \[6, 1, 2, 4\]"):
        tdmpc2_checkpoint.tree_of(tdmpc2_checkpoint.read_state(NEW), (6, 1, 2, 4), DISCOUNTS)
    torch_writer.save(tmp_path / "other.pt", "weights", {"x": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointFormatError, match="no state dictionary"):
        tdmpc2_checkpoint.read_state(tmp_path / "other.pt")


def test_a_model_without_a_place_there_is_not_written(tmp_path: Path) -> None:

    imported = read(OLD)
    for changes in (
        dict(residual_dynamics=True),
        dict(normalise_obs=True),
        dict(simnorm_dim=4),
        dict(mlp_hidden=(40,)),
        dict(enc_hidden=(32, 16)),
    ):
        with pytest.raises(CheckpointFormatError, match=f"no place for a model with .*'{next(iter(changes))}'"):
            tdmpc2_checkpoint.write(tmp_path / "a.pt", dataclasses.replace(imported.model, **changes), imported.params)
    assert not list(tmp_path.iterdir())

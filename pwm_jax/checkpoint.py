"""Checkpoints: any pytree with JSON metadata, saved and restored through orbax.

A checkpoint is one directory, `<directory>/<step>/`, with two orbax items: `arrays`, the leaves of the state as a flat dict of
host arrays keyed by their path in the tree, and `manifest`, a JSON file of the leaves' paths, shapes, dtypes and checksums
and of the caller's metadata. Orbax writes it under a temporary name and renames it, so a killed save leaves no half checkpoint;
the checksums find damage done later. Those of the files (see `digests`) find it before orbax reads them.
Host arrays name no device: what a GPU saved, a CPU restores.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from pwm_jax import digests
from pwm_jax.event_loops import late_calls_ignored
from pwm_jax.untrusted import shown

State = TypeVar("State")
Result = TypeVar("Result")

_FORMAT = "pwm_jax checkpoint 1"
_ARRAYS = "arrays"
_MANIFEST = "manifest"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, is missing, damaged, foreign, or made for another state; names the path and the remedy."""


class _DamagedError(Exception):
    """One checkpoint cannot be read; an older one may be."""


def save(directory: str | Path, step: int, state: Any, metadata: Mapping[str, Any] | None = None, *, keep: int = 2) -> None:
    """Write `state` as the checkpoint of `step` and keep the `keep` newest.

    The call returns when the checkpoint is complete on disk. Checkpoints of later steps are removed: a run that saves `step` has
    gone back before them. Meant for one writer a directory (see `workdir.WorkdirLock`), or all processes of one run (`jax.distributed`),
    of which the first writes; the directory is then one that all of them see.

    Args:
      directory: where the checkpoints of one run are; made if missing.
      step: number of gradient steps (or iterations) behind `state`, >= 0.
      state: a pytree of jax or numpy arrays, Python scalars and typed PRNG keys.
      metadata: what a reader needs before it can build `state`, such as the model configuration; JSON-able.
      keep: how many of the newest checkpoints stay, >= 1.

    Raises:
      CheckpointError: the metadata is not JSON, a leaf is no array, or the directory cannot be written (full, read-only).
    """
    directory = Path(directory).absolute()
    arrays, leaves = _flatten(state)
    manifest = {"format": _FORMAT, "step": step, "leaves": leaves, "metadata": dict(metadata or {})}
    try:
        json.dumps(manifest)
    except TypeError as error:
        raise CheckpointError(f"the metadata of checkpoint {step} in {directory} is not JSON: {error}") from error
    items = ocp.args.Composite(
        **{
            # Orbax refuses arrays without elements; the manifest alone says what they were.
            _ARRAYS: ocp.args.PyTreeSave({path: array for path, array in arrays.items() if array.size}),
            _MANIFEST: ocp.args.JsonSave(manifest),
        }
    )
    path, first = directory / _name(step), jax.process_index() == 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if first:
            _remove_unfinished(directory)
        with _checkpointer() as checkpointer:
            checkpointer.save(path, items, force=True)
        if first:
            digests.note(path)
        steps = _steps(directory) if first else [step]
        position = steps.index(step)
        for stale in steps[:position] + steps[position + keep :]:
            shutil.rmtree(directory / _name(stale), ignore_errors=True)
    except Exception as error:  # orbax and tensorstore report a full or read-only disk by many classes
        _remove_unfinished(directory)
        cause = "the disk is full" if "No space left" in str(error) else _one_line(error)
        raise CheckpointError(f"cannot write checkpoint {path}: {cause}. Free space or choose a writable directory.") from error


def restore(directory: str | Path, like: State, step: int | None = None) -> tuple[State, dict[str, Any]]:
    """Read a state and its metadata back, bit for bit.

    Without `step` the newest checkpoint that is whole is used; damaged newer ones are named in a warning.

    Args:
      directory: what `save` was given.
      like: a pytree of the same structure, shapes and dtypes: a fresh state, or `jax.eval_shape` of the function that makes it.
        A leaf that is a committed jax.Array gives the sharding of the restored one; other jax leaves and shapes go to the
        default device, numpy leaves and Python scalars stay on the host.
      step: which checkpoint; None for the newest.

    Raises:
      CheckpointError: none there, none whole, or `like` differs from what was saved (names the first leaf that differs).
    """

    def read(path: Path) -> tuple[State, dict[str, Any]]:
        manifest = _read_manifest(path)
        try:
            _check_same_leaves(path, manifest["leaves"], like)
            return _unflatten(like, _read_arrays(path, manifest["leaves"]), manifest["leaves"]), manifest["metadata"]
        except CheckpointError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _DamagedError(f"{path}: {_one_line(error)}") from error

    return _read_newest_whole(Path(directory).absolute(), step, read)


def load_metadata(directory: str | Path, step: int | None = None) -> dict[str, Any]:
    """Return only the metadata of checkpoint `step` (None: the newest), reading no array.

    Raises:
      CheckpointError: as `restore`.
    """
    return _read_newest_whole(Path(directory).absolute(), step, lambda path: _read_manifest(path)["metadata"])


def latest_step(directory: str | Path) -> int | None:
    """Return the newest checkpoint's step, None where `directory` is missing or has none; does not look inside it."""
    return next(iter(_steps(Path(directory).absolute())), None)


def on_host(tree: Any) -> Any:
    """A tree's leaves as host arrays, of which other processes (`jax.distributed`) may hold parts: all of them call it."""

    def whole(leaf: Any) -> Any:
        apart = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated
        return multihost_utils.process_allgather(leaf, tiled=True) if apart else leaf

    return jax.device_get(jax.tree.map(whole, tree))


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
    """Orbax's checkpointer, its own log of tracebacks off: every fault reaches the caller as an exception."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        with late_calls_ignored(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            yield checkpointer
    finally:
        logging.set_verbosity(verbosity)


def _name(step: int) -> str:
    return f"{step:010d}"


def _steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in `directory`, newest first."""
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if len(p.name) == 10 and p.name.isdecimal() and p.is_dir()), reverse=True)


def _remove_unfinished(directory: Path) -> None:
    for leftover in directory.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read_newest_whole(directory: Path, step: int | None, read: Callable[[Path], Result]) -> Result:
    """Apply `read` to the newest checkpoint (or that of `step`) that it does not find damaged."""
    steps = _steps(directory)
    if not steps:
        missing = "is empty of checkpoints" if directory.is_dir() else "does not exist"
        raise CheckpointError(f"no checkpoint of pwm_jax: {directory} {missing}. Check the path, or run the stage that writes it.")
    if step is not None and step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {directory}; there are {', '.join(map(str, steps))}.")
    for candidate in steps if step is None else [step]:
        try:
            return read(directory / _name(candidate))
        except _DamagedError as error:
            damage = error
            logging.warning("damaged checkpoint passed over: %s", damage)
    raise CheckpointError(f"no whole checkpoint: {damage}. Delete it and run the stage that writes it again.") from damage


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {ascii(lines[0][:300])[1:-1]}" if lines else type(error).__name__


def _read_item(path: Path, item: str, arguments: Any) -> Any:
    try:
        digests.check(path, item)
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path, ocp.args.Composite(**{item: arguments}))[item]
    except Exception as error:  # orbax reports missing and broken files by many classes; all make the checkpoint unusable
        raise _DamagedError(f"{path}: {_one_line(error)}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_item(path, _MANIFEST, ocp.args.JsonRestore())
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of this version of pwm_jax ('{_FORMAT}' is not in its manifest). Choose another.")
    if not isinstance(manifest.get("metadata"), dict):
        raise _DamagedError(f"{path}: its manifest is not as it was saved")
    return manifest


def _read_arrays(path: Path, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    empty = {p: np.zeros(leaf["shape"], jnp.dtype(leaf["dtype"])) for p, leaf in leaves.items() if 0 in leaf["shape"]}
    as_numpy = {p: ocp.RestoreArgs(restore_type=np.ndarray) for p in leaves if p not in empty}
    stored = _read_item(path, _ARRAYS, ocp.args.PyTreeRestore(restore_args=as_numpy)) if as_numpy else {}
    for p in as_numpy:
        fits = p in stored and ("prng_impl" in leaves[p] or _describe(stored[p]) == {key: leaves[p][key] for key in ("shape", "dtype")})
        if not fits or _crc32(stored[p]) != leaves[p]["crc32"]:
            raise _DamagedError(f"{path}: the bytes of leaf {p} are not those that were saved")
    return {**stored, **empty}


def _leaf_path(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/") or "(root)"


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _flatten(state: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Leaves of `state` as host arrays by path, and their entries of the manifest; a typed PRNG key is stored as its words."""
    arrays: dict[str, np.ndarray] = {}
    entries: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        path = _leaf_path(keys)
        array = np.asarray(on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf))
        if array.dtype.hasobject or array.dtype.kind in "USM":
            raise CheckpointError(f"leaf {path} is a {type(leaf).__name__}, not an array; a checkpoint holds only numbers.")
        if path in arrays:
            raise CheckpointError(f"two leaves have the path {path}; name the fields of the state so that paths differ.")
        arrays[path] = array
        entries[path] = {**_describe(leaf), "crc32": _crc32(array)}
        if _is_key(leaf):
            entries[path]["prng_impl"] = str(jax.random.key_impl(leaf))
    return arrays, entries


def _describe(leaf: Any) -> dict[str, Any]:
    """Shape and dtype of an array, a `jax.ShapeDtypeStruct`, a typed PRNG key or a Python scalar, as JSON."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def _check_same_leaves(path: Path, saved: Mapping[str, Any], like: Any) -> None:
    expected = {_leaf_path(keys): _describe(leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(like)[0]}
    remedy = "Use the configuration that the checkpoint was made with."
    for p, leaf in expected.items():
        if p not in saved:
            raise CheckpointError(f"{path} does not fit: leaf {p} {_text(leaf)} is expected but not in it. {remedy}")
        if {k: saved[p][k] for k in leaf} != leaf:
            raise CheckpointError(f"{path} does not fit: leaf {p} is {_text(saved[p])} in it, {_text(leaf)} is expected. {remedy}")
    for p, leaf in saved.items():
        if p not in expected:
            raise CheckpointError(f"{path} does not fit: its leaf {shown(p)[1:-1]} {_text(leaf)} is not expected. {remedy}")


def _text(leaf: Mapping[str, Any]) -> str:
    return shown(f"{leaf['dtype']}[{', '.join(map(str, leaf['shape']))}]")[1:-1]


def _unflatten(like: State, arrays: Mapping[str, np.ndarray], entries: Mapping[str, Any]) -> State:
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    paths = [_leaf_path(keys) for keys, _ in leaves]
    placed = [_place(leaf, arrays[path], entries[path]) for path, (_, leaf) in zip(paths, leaves, strict=True)]
    return jax.tree_util.tree_unflatten(structure, placed)


def _place(like: Any, array: np.ndarray, entry: Mapping[str, Any]) -> Any:
    """Give a host array the kind of `like`: PRNG key, jax array on its device, numpy array, or Python scalar."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(array), impl=entry["prng_impl"])
    if isinstance(like, jax.Array) and like.committed:
        return jax.device_put(array, like.sharding)
    if isinstance(like, jax.Array | jax.ShapeDtypeStruct):
        return jnp.array(array)
    if isinstance(like, bool | int | float | complex):
        return array.item()
    return array

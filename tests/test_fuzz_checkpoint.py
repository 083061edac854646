"""Damaged directories of checkpoints: what is restored is the newer state, the older one, or nothing."""

import json
import shutil
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guard import Reader
from mutation import STRANGE, counts, files_of, mutate_bytes, mutate_json, to_text

from pwm_jax import checkpoint
from pwm_jax.checkpoint import CheckpointError


@flax.struct.dataclass
class State:
    """A leaf of every kind."""

    step: jax.Array
    params: dict
    key: jax.Array
    empty: np.ndarray
    host: np.ndarray


def state(seed: int) -> State:
    params = {"dense": {"kernel": jnp.full((30, 4), seed, jnp.float32), "bias": jnp.arange(4, dtype=jnp.bfloat16) + seed}}
    return State(jnp.int32(seed), params, jax.random.key(seed), np.zeros((0, 3)), np.array([np.nan, seed]))


def content(restored: tuple[State, dict]) -> str:
    """Everything restored, as text that is equal when all of it is."""
    tree = restored[0].replace(key=jax.random.key_data(restored[0].key))
    leaves = [(np.asarray(leaf).dtype.name, np.asarray(leaf).shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]
    return repr((leaves, restored[1]))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    for name in ("one", "two"):
        for step in (1, 2):
            checkpoint.save(root / name, step, state(step if name == "one" else 7), {"width": step, "tasks": ["walker-run", "mw-reach"]})
    return root


@counts(80, 1500)
def test_a_damaged_file_of_the_newest(made, tmp_path, count):
    path = shutil.copytree(made / "one", tmp_path / "run")
    rng, reader, like = np.random.default_rng(count), Reader(CheckpointError, tmp_path), state(0)
    newest, older = (content(checkpoint.restore(path, like, step)) for step in (2, 1))
    files = files_of(path / "0000000002")
    others = [file.read_bytes() for file in files_of(made / "two" / "0000000002")]
    reader.meet(lambda: content(checkpoint.restore(path, like)), "none", lambda found: found == newest)
    for number in range(count):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        if rng.uniform() < 0.1:
            what = "deleted"
            file.unlink()
        elif whole.startswith(b"{") and rng.uniform() < 0.7:
            what, text = mutate_json(rng, json.loads(whole))
            file.write_text(text)
        else:
            what, changed = mutate_bytes(rng, whole, others[rng.integers(len(others))])
            file.write_bytes(changed)
        fits = (newest, older)
        reader.meet(lambda: content(checkpoint.restore(path, like)), f"{number}: {what} of {file.name}", lambda found: found in fits)  # noqa: B023
        file.write_bytes(whole)
        shutil.rmtree(path / "0000000002")
        shutil.copytree(made / "one" / "0000000002", path / "0000000002")
    print(f"checkpoints: {reader.accepted} restored, {reader.refused} refused")
    assert not reader.faults, "\n".join(reader.faults[:30])
    assert reader.accepted > count / 2


@counts(40, 500)
def test_damage_to_both(made, tmp_path, count):
    rng, reader, like = np.random.default_rng(count), Reader(CheckpointError, tmp_path), state(0)
    whole = {content(checkpoint.restore(made / "one", like, step)) for step in (2, 1)}
    for number in range(count):
        path = shutil.copytree(made / "one", tmp_path / "run")
        what = []
        for step in path.iterdir():
            for file in rng.permutation(np.array(files_of(step), object))[: rng.integers(1, 5)]:
                done, changed = mutate_bytes(rng, file.read_bytes(), bytes(64))
                file.write_bytes(changed)
                what.append(f"{done} of {file.name}")
        reader.meet(lambda: content(checkpoint.restore(path, like)), f"{number}: {what}", lambda found: found in whole)  # noqa: B023
        shutil.rmtree(path)
    reader.done("checkpoints, both of a directory damaged", accepts=False)


@counts(60, 500)
def test_a_manifest_whose_checksum_fits(made, tmp_path, count):
    """Written by another program, or an earlier version: without a checksum of its own."""
    path = shutil.copytree(made / "one", tmp_path / "run")
    rng, reader, like = np.random.default_rng(count), Reader(CheckpointError, tmp_path), state(0)
    leaves = {content(checkpoint.restore(path, like, step)).partition(", {")[0] for step in (2, 1)}
    file = path / "0000000002" / "manifest" / "metadata"
    manifest = json.loads(file.read_text())
    (path / "0000000002" / "files.json").unlink()
    for number in range(count):
        what, text = mutate_json(rng, manifest)
        file.write_text(text)
        reader.meet(lambda: content(checkpoint.restore(path, like)), f"{number}: {what}", lambda found: found.partition(", {")[0] in leaves)
        reader.meet(lambda: checkpoint.load_metadata(path), f"{number}: metadata, {what}", lambda found: isinstance(found, dict))
    reader.done("checkpoints' manifests")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that orbax leaves behind when one fails
@counts(30, 700)
def test_a_damaged_file_of_an_earlier_version(made, tmp_path, count):
    """Without the digests of files: the checksums of the leaves find what orbax does not."""
    rng, reader, like = np.random.default_rng(count), Reader(CheckpointError, tmp_path), state(0)
    newest, older = (content(checkpoint.restore(made / "one", like, step)).partition(", {")[0] for step in (2, 1))
    for number in range(count):
        path = shutil.copytree(made / "one", tmp_path / "run")
        for note in path.rglob("files.json"):
            note.unlink()
        files = files_of(path / "0000000002" / "arrays")
        file = files[rng.integers(len(files))]
        what, changed = mutate_bytes(rng, file.read_bytes(), bytes(64))
        file.write_bytes(changed)
        read = lambda path=path: content(checkpoint.restore(path, like)).partition(", {")[0]  # noqa: E731
        reader.meet(read, f"{number}: {what} of {file.name}", lambda found: found in (newest, older))
        shutil.rmtree(path)
    print(f"checkpoints of an earlier version: {reader.accepted} restored, {reader.refused} refused")
    assert not reader.faults, "\n".join(reader.faults[:30])


@counts(30, len(STRANGE) * 4)
def test_strange_values_in_the_manifest(made, tmp_path, count):
    path = shutil.copytree(made / "one", tmp_path / "run")
    reader, like, file = Reader(CheckpointError, tmp_path), state(0), path / "0000000002" / "manifest" / "metadata"
    manifest = json.loads(file.read_text())
    (path / "0000000002" / "files.json").unlink()
    pairs = [(field, value) for field in manifest for value in STRANGE]
    for at in np.random.default_rng(0).permutation(len(pairs))[:count]:
        field, value = pairs[at]
        file.write_text(to_text({**manifest, field: value}))
        reader.meet(lambda: content(checkpoint.restore(path, like)), f"{field} {value!r:.40}")
    reader.done("manifests of strange values")

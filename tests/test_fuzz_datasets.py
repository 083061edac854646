"""Damaged and hostile datasets: this project's directories, and the compact file that is shipped.

Every byte of a directory is under a checksum but those of `.lock`; rewards and observations themselves are data, so that a file whose
checksums were made to fit may hold any finite numbers.
"""

import functools
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from guard import Reader
from mutation import STRANGE, counts, files_of, mutate_bytes, mutate_json, to_text
from tiny_data import TASKS, make_episode

from pwm_jax.data.compact import export_compact, import_compact
from pwm_jax.data.format import DatasetError, crc32_of
from pwm_jax.data.store import Dataset, DatasetWriter

NAMES = ("dataset.json", "shard.json", "*.npy")


def everything(dataset: Dataset) -> list[np.ndarray | str]:
    """All that a reader gives: the columns, every frame, tasks and recipe."""
    episodes = [dataset.episode(index) for index in range(len(dataset))]
    arrays = [getattr(episode, name) for episode in episodes for name in ("obs", "action", "reward", "terminated")]
    columns = [getattr(dataset.episodes, name) for name in ("task_id", "length", "episode_return", "success", "source", "seed")]
    return [*arrays, *columns, json.dumps([dataset.task_set.to_dict(), dataset.recipe])]


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f") for a, b in zip(first, second, strict=True)
    )


def opened(path: Path) -> list[np.ndarray | str]:
    return everything(Dataset.open(path))


def finite(found: list[np.ndarray | str]) -> bool:
    return all(np.isfinite(array).all() for array in found if isinstance(array, np.ndarray) and array.ndim == 2)


def write(path: Path, seeds: range) -> Path:
    with DatasetWriter(path, TASKS, {"made": "for tests", "noise": [0.1, {"kind": "pink"}]}, shard_frames=40) as writer:
        for seed in seeds:
            writer.add_episode(make_episode(seed % 2, seed))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A dataset of two shards, another one with other numbers, and both as compact files."""
    root = tmp_path_factory.mktemp("datasets")
    for name, seeds in (("one", range(6)), ("two", range(10, 17))):
        export_compact(Dataset.open(write(root / name, seeds)), root / f"{name}.npz")
    return root


@counts(60, 2500)
def test_a_damaged_directory(made, tmp_path, count):
    path = shutil.copytree(made / "one", tmp_path / "data")
    rng, reader = np.random.default_rng(count), Reader(DatasetError, path)
    wanted = everything(Dataset.open(path))
    files = files_of(path, NAMES)
    for number in range(count):
        file = files[rng.integers(len(files))]
        whole, other = file.read_bytes(), (made / "two" / file.relative_to(path)).read_bytes()
        if rng.uniform() < 0.03:
            what = "deleted"
            file.unlink()
        elif file.suffix == ".json" and rng.uniform() < 0.7:
            what, text = mutate_json(rng, json.loads(whole))
            file.write_text(text)
        else:
            what, changed = mutate_bytes(rng, whole, other)
            file.write_bytes(changed)
        reader.meet(lambda: opened(path), f"{number}: {what} of {file.name}", lambda found: same(found, wanted))
        file.write_bytes(whole)
    reader.done("dataset directories", accepts=False)


@counts(40, 1000)
def test_a_directory_whose_checksums_fit(made, tmp_path, count):
    """As somebody who means harm would write it: accepted or refused, but with finite numbers and without harm."""
    rng, reader = np.random.default_rng(count), Reader(DatasetError, tmp_path)
    for number in range(count):
        path = shutil.copytree(made / "one", tmp_path / "data")
        files = files_of(path / "shard-00000", ("*.npy",))
        file = files[rng.integers(len(files))]
        what, changed = mutate_bytes(rng, file.read_bytes(), (made / "two" / file.relative_to(path)).read_bytes())
        file.write_bytes(changed)
        record = json.loads((file.parent / "shard.json").read_text())
        record["crc32"][file.name] = crc32_of(file)
        (file.parent / "shard.json").write_text(json.dumps(record))
        index = json.loads((path / "dataset.json").read_text())
        index.pop("crc32", None)
        (path / "dataset.json").write_text(json.dumps(index) if rng.uniform() < 0.5 else mutate_json(rng, index)[1])
        reader.meet(functools.partial(opened, path), f"{number}: {what} of {file.name}", finite)
        shutil.rmtree(path)
    reader.done("dataset directories with checksums made to fit")


@counts(40, 1000)
def test_a_damaged_compact_file(made, tmp_path, count):
    rng, reader, file = np.random.default_rng(count), Reader(DatasetError, tmp_path), tmp_path / "shipped.npz"
    wanted, whole, other = everything(Dataset.open(made / "one")), (made / "one.npz").read_bytes(), (made / "two.npz").read_bytes()
    for number in range(count):
        what, changed = mutate_bytes(rng, whole, other)
        file.write_bytes(changed)
        reader.meet(lambda: everything(import_compact(file, tmp_path / "data")), f"{number}: {what}", lambda found: same(found, wanted))
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    reader.done("compact files")


@counts(40, 1000)
def test_a_compact_file_whose_checksums_fit(made, tmp_path, count):
    rng, reader, file = np.random.default_rng(count), Reader(DatasetError, tmp_path), tmp_path / "shipped.npz"
    with zipfile.ZipFile(made / "one.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(str(np.load(io.BytesIO(members["meta.npy"]))))
    for number in range(count):
        name = list(members)[rng.integers(len(members))]
        if name == "meta.npy" or rng.uniform() < 0.3:
            what, text = mutate_json(rng, meta)
            buffer = io.BytesIO()
            np.save(buffer, np.array(text))
            name, changed = "meta.npy", buffer.getvalue()
        else:
            what, changed = mutate_bytes(rng, members[name], members["seed.npy"])
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, changed if member == name else content)
        reader.meet(lambda: everything(import_compact(file, tmp_path / "data")), f"{number}: {what} of {name}", finite)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    reader.done("compact files with checksums made to fit")


@counts(60, len(STRANGE) * 8)
def test_strange_values_in_the_index(made, tmp_path, count):
    path = shutil.copytree(made / "one", tmp_path / "data")
    reader, index = Reader(DatasetError, path), json.loads((path / "dataset.json").read_text())
    index.pop("crc32", None)
    pairs = [(field, value) for field in index for value in STRANGE]
    for at in np.random.default_rng(0).permutation(len(pairs))[:count]:
        field, value = pairs[at]
        (path / "dataset.json").write_text(to_text({**index, field: value}))
        ok = value == 1 or field in ("recipe", "complete", "episodes", "frames")
        reader.meet(lambda: opened(path), f"{field} {value!r:.40}", lambda _, ok=ok: ok)
    reader.done("indices")

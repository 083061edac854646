"""Damaged datasets of Minari: HDF5 and JSON, which have no checksums, so that changed numbers are taken where they are finite."""

import json
import shutil

import numpy as np
import pytest
from guard import Reader
from mutation import counts, files_of, mutate_bytes, mutate_json
from tiny_data import write_dataset

from pwm_jax.data import minari as converter
from pwm_jax.data.format import DatasetError
from pwm_jax.data.store import Dataset


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Where Minari keeps two datasets of a task."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for name, episodes in (("one", 3), ("two", 4)):
        write_dataset(tmp_path / name, episodes=episodes)
        converter.write(str(tmp_path / name), "reacher-easy", f"tests/{name}-v0")
    return tmp_path / "minari" / "tests"


@counts(60, 2500)
def test_a_damaged_dataset(stored, tmp_path, count):
    rng, path = np.random.default_rng(count), tmp_path / "imported"
    files = files_of(stored / "one-v0")

    def imported():
        converter.read("tests/one-v0", "reacher-easy", str(path))
        return list(Dataset.open(path).iter_episodes())

    wanted = imported()
    shutil.rmtree(path)
    reader = Reader(DatasetError, tmp_path)
    for number in range(count):
        file = files[rng.integers(len(files))]
        whole, other = file.read_bytes(), (stored / "two-v0" / file.relative_to(stored / "one-v0")).read_bytes()
        if file.suffix == ".json" and rng.uniform() < 0.7:
            what, text = mutate_json(rng, json.loads(whole))
            file.write_text(text)
        else:
            what, changed = mutate_bytes(rng, whole, other)
            file.write_bytes(changed)
        reader.meet(
            imported,
            f"{number}: {what} of {file.name}",
            lambda found: (
                1 <= len(found) <= 4 and all(np.isfinite(e.obs).all() and e.obs.shape[1] == wanted[0].obs.shape[1] for e in found)
            ),
        )
        file.write_bytes(whole)
        shutil.rmtree(path, ignore_errors=True)
    reader.done("Minari's datasets")

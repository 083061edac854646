"""Damaged and hostile torch files: TD-MPC2's datasets and checkpoints.

Every file in the archive is under a checksum of the zip format; the archive's own headers are not, but what they say is checked.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from guard import Reader
from mutation import STRANGE, counts, mutate_bytes
from test_tdmpc2_checkpoint import DISCOUNTS, NEW, OLD, outputs
from torch_files import Call, Name, tensor, tensordict_current, torch_save, write_archive

from pwm_jax import tdmpc2_checkpoint, torch_archive
from pwm_jax.data.store import Dataset, DatasetError
from pwm_jax.tdmpc2_checkpoint import CheckpointFormatError
from pwm_jax.torch_archive import ArchiveError

PUBLISHED = Path(__file__).parent / "fixtures" / "tdmpc2"
CHUNKS = [(PUBLISHED / f"chunk_{index}.pt").read_bytes() for index in (0, 1)]
MODELS = [path.read_bytes() for path in (OLD, NEW)]
REFUSALS = (ArchiveError, CheckpointFormatError)


def rows(path: Path) -> list[np.ndarray]:
    dataset = Dataset.open(path)
    columns = [dataset.episodes.task_id, dataset.episodes.episode_return]
    return columns + [getattr(episode, name) for episode in dataset.iter_episodes() for name in ("obs", "action", "reward")]


def parameters(path: Path) -> list[np.ndarray]:
    """Every parameter, and what else the file tells of the model."""
    import jax

    imported = tdmpc2_checkpoint.tree_of(tdmpc2_checkpoint.read_state(path), tuple(outputs()["action_dims"].tolist()), DISCOUNTS)
    return [np.array(leaf) for leaf in jax.tree.leaves((imported.params, imported.target_q))] + [np.array(repr(imported.model))]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def records_of(content: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The archive's files without its folder, and its storages by key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    storages = {name.removeprefix("data/"): value for name, value in files.items() if name.startswith("data/")}
    return {name: value for name, value in files.items() if not name.startswith("data/") and name != "version"}, storages


@counts(60, 1200)
def test_a_damaged_file_of_a_dataset(tmp_path, count):
    file, rng, reader = tmp_path / "chunk_0.pt", np.random.default_rng(count), Reader(DatasetError, tmp_path)
    file.write_bytes(CHUNKS[0])
    wanted = rows(tmp_path)
    directory = CHUNKS[0].index(b"PK\x01\x02")
    for number in range(count):
        if rng.uniform() < 0.4:  # the archive's directory, an eighth of the file
            what, changed = mutate_bytes(rng, CHUNKS[0][directory:], CHUNKS[1][-500:])
            file.write_bytes(CHUNKS[0][:directory] + changed)
        else:
            what, changed = mutate_bytes(rng, CHUNKS[0], CHUNKS[1])
            file.write_bytes(changed)
        reader.meet(lambda: rows(tmp_path), f"{number}: {what}", lambda found: same(found, wanted))
    reader.done("TD-MPC2 files")


@counts(60, 1000)
def test_a_dataset_whose_checksums_fit(tmp_path, count):
    """The pickle and the task ids changed by somebody who means harm; what is accepted are finite rows of known tasks."""
    rng, reader = np.random.default_rng(count), Reader(DatasetError, tmp_path)
    records, storages = records_of(CHUNKS[1])
    for number in range(count):
        data, stored = records["data.pkl"], dict(storages)
        if rng.uniform() < 0.7:
            what, data = mutate_bytes(rng, data, records_of(CHUNKS[0])[0]["data.pkl"])
        else:
            key = str(rng.integers(len(stored)))
            what, stored[key] = mutate_bytes(rng, stored[key], CHUNKS[0])
        write_archive(tmp_path / "chunk_0.pt", {**records, "data.pkl": data}, stored)
        reader.meet(lambda: rows(tmp_path), f"{number}: {what}", lambda found: all(np.isfinite(array).all() for array in found))
    reader.done("TD-MPC2 files with checksums made to fit")


@counts(15, 700)
def test_a_damaged_checkpoint(tmp_path, count):
    file, rng, reader = tmp_path / "model.pt", np.random.default_rng(count), Reader(REFUSALS, tmp_path)
    wanted = [parameters(path) for path in (OLD, NEW)]
    for number in range(count):
        which = int(rng.integers(2))
        what, changed = mutate_bytes(rng, MODELS[which], MODELS[1 - which])
        file.write_bytes(changed)
        reader.meet(lambda: parameters(file), f"{number}: {what}", lambda found, which=which: same(found, wanted[which]))
    reader.done("TD-MPC2 checkpoints", accepts=False)


@counts(15, 700)
def test_a_checkpoint_whose_checksums_fit(tmp_path, count):
    file, rng, reader = tmp_path / "model.pt", np.random.default_rng(count), Reader(REFUSALS, tmp_path)
    for number in range(count):
        records, storages = records_of(MODELS[rng.integers(2)])
        what, data = mutate_bytes(rng, records["data.pkl"], b"".join(storages.values())[:4096])
        write_archive(file, {**records, "data.pkl": data}, storages)
        reader.meet(lambda: parameters(file), f"{number}: {what}", lambda found: all(np.isfinite(a).all() for a in found[:-1]))
    reader.done("TD-MPC2 checkpoints with checksums made to fit")


@counts(15, 600)
def test_a_checkpoint_of_other_arrays(tmp_path, count):
    """An honest archive, in which an array has another name or shape, is missing, or is no array."""
    file, rng, reader = tmp_path / "model.pt", np.random.default_rng(count), Reader(REFUSALS, tmp_path)
    for number in range(count):
        state = {key: np.array(value) for key, value in tdmpc2_checkpoint.read_state((OLD, NEW)[rng.integers(2)]).items()}
        key = list(state)[rng.integers(len(state))]
        value, kind = state[key], str(rng.choice(["delete", "rename", "shape", "scalar", "dtype", "nan", "strange", "empty", "swap"]))
        match kind:
            case "delete":
                del state[key]
            case "rename":
                state[key[: rng.integers(1, len(key))] + "9" * int(rng.choice([1, 5000]))] = state.pop(key)
            case "shape":
                state[key] = np.ascontiguousarray([value.T, value[None], value.reshape(-1), value[..., :1]][rng.integers(4)])
            case "scalar":
                state[key] = np.float32(1.0).reshape(())
            case "dtype":
                state[key] = value.astype(str(rng.choice(["f8", "i8", "f2", "u1"])))
            case "nan":
                state[key] = np.full_like(value, np.nan)
            case "strange":
                strange = [value for value in STRANGE if not isinstance(value, str) or value.isprintable()]
                state[key] = strange[rng.integers(len(strange))]
            case "empty":
                state[key] = value.reshape(-1)[:0]
            case "swap":
                other = list(state)[rng.integers(len(state))]
                state[key], state[other] = state[other], state[key]
        torch_save(file, {"model": state})
        reader.meet(lambda: parameters(file), f"{number}: {kind} {key:.60}", lambda found: all(np.isfinite(a).all() for a in found[:-1]))
    reader.done("TD-MPC2 checkpoints of other arrays")


OPCODES = [bytes([code]) for code in b"()}]ahjprqtuelsbcRQSTUVXBC0123NKLMJGFIDio\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x93\x94\x95"]
FRAGMENTS = [
    b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\nexec\n", b"cbuiltins\ngetattr\n", b"ctorch\nSize\n", b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctensordict._td\nTensorDict\n", b"X\x0c\x00\x00\x00touch hacked",
    b"\x85R", b")R", b"}b", b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu", b"K\x18tQ", b"q\x01", b"h\x01",
    b"K\x00", b"\x8a\xff",
]  # fmt: skip


@counts(150, 1500)
def test_a_pickle_of_random_opcodes(tmp_path, monkeypatch, count):
    """REDUCE, BUILD, GLOBAL and the rest, in any order: nothing is run, and no file appears."""
    monkeypatch.chdir(tmp_path)
    file, rng, reader = tmp_path / "made.pt", np.random.default_rng(count), Reader(ArchiveError, tmp_path)
    for number in range(count):
        parts = [(OPCODES if rng.uniform() < 0.5 else FRAGMENTS) for _ in range(rng.integers(1, 30))]
        data = b"\x80\x02" + b"".join(part[rng.integers(len(part))] for part in parts) + b"."
        write_archive(file, {"data.pkl": data}, {"0": bytes(96)})
        reader.meet(lambda: [torch_archive.load(file)], f"{number}: {data!r}")
        assert [path.name for path in tmp_path.iterdir()] == ["made.pt"]
    reader.done("pickles of random opcodes", accepts=False)


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "posix.system", "subprocess.Popen", "numpy.load", "torch.load"])
def test_a_tensor_that_calls_a_function(tmp_path, monkeypatch, name):
    """In the place of each part of an otherwise honest file."""
    monkeypatch.chdir(tmp_path)
    module, function = name.rsplit(".", 1)
    run = Call(Name(module, function), ("touch hacked",))
    arrays = {key: np.zeros((2, 6), np.float32) for key in ("obs", "action", "reward", "task")}
    reader = Reader(DatasetError, tmp_path)
    for key in arrays:
        torch_save(tmp_path / "chunk_0.pt", tensordict_current({**arrays, key: run}, (2, 6)))
        reader.meet(lambda: rows(tmp_path), key)
    torch_save(tmp_path / "chunk_0.pt", Call(tensor("0", "Float", 2, (2,), (1,)), (run,)), {"0": bytes(8)})
    reader.meet(lambda: rows(tmp_path), "the call of a tensor")
    assert (reader.accepted, reader.refused) == (0, 5)
    reader.done(name, accepts=False)
    assert [path.name for path in tmp_path.iterdir()] == ["chunk_0.pt"]

import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import Call, Name, pickled, tensor, tensordict_2023, tensordict_current, torch_save, write_archive

from pwm_jax.torch_archive import ArchiveError, Opaque, load, verify

PUBLISHED = Path(__file__).parent / "fixtures" / "tdmpc2"
NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("index", [0, 1])
def test_a_file_that_torch_wrote(index: int) -> None:
    path = PUBLISHED / f"chunk_{index}.pt"
    expected = np.load(PUBLISHED / "chunk_contents.npz")
    entries = load(path)
    assert list(entries) == ["obs", "action", "reward", "task"]
    for name, values in entries.items():
        np.testing.assert_array_equal(values, expected[f"{name}{index}"], strict=True)
        assert not values.flags.writeable
        assert values.base is entries["obs"].base
    verify(path)


@pytest.mark.parametrize("layout", [tensordict_2023, tensordict_current, lambda entries, _: entries], ids=["2023", "current", "dict"])
def test_every_layout_of_a_tensordict_gives_its_entries(tmp_path: Path, layout: Any) -> None:
    written = {"obs": NUMBERS, "task": np.array([[3, 1]], np.int32)}
    path = torch_save(tmp_path / "td.pt", layout(written, (2,)))
    verify(path)
    entries = load(path)
    assert list(entries) == ["obs", "task"]
    for name, values in written.items():
        np.testing.assert_array_equal(entries[name], values, strict=True)


def test_dtypes_nesting_and_scalars(tmp_path: Path) -> None:
    arrays = [np.array([1, 0, 2]).astype(dtype) for dtype in ("f4", "f8", "f2", "i8", "i4", "u1", "?")]
    written = {
        "step": 7,
        "lr": 0.5,
        "name": "x",
        "none": None,
        "flag": True,
        3: (1, [2, {"deep": arrays}]),
        "empty": np.zeros((0, 4), "f4"),
    }
    read = load(torch_save(tmp_path / "a.pt", written))
    assert {key: read[key] for key in ("step", "lr", "name", "none", "flag")} == {key: written[key] for key in list(written)[:5]}
    assert read["empty"].shape == (0, 4)
    assert read[3][0] == 1
    for actual, expected in zip(read[3][1][1]["deep"], arrays, strict=True):
        np.testing.assert_array_equal(actual, expected, strict=True)
    half = tensor("0", "BFloat16", 2, (2,), (1,))
    np.testing.assert_array_equal(
        load(torch_save(tmp_path / "b.pt", half, {"0": b"\x80\x3f\x00\xc0"})), jnp.asarray([1.0, -2.0], jnp.bfloat16)
    )


def test_views_of_a_storage(tmp_path: Path) -> None:
    views = {
        "transposed": tensor("0", "Float", 24, (3, 2), (1, 3)),
        "offset": tensor("0", "Float", 24, (4,), (1,), 20),
        "single": tensor("0", "Float", 24, (1, 2), (10**30, 12), 1),
        "parameter": Call(Name("torch._utils", "_rebuild_parameter"), (tensor("0", "Float", 24, (2,), (1,)), True, {})),
    }
    read = load(torch_save(tmp_path / "a.pt", views, {"0": NUMBERS.tobytes()}))
    assert read["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["offset"].tolist() == [20, 21, 22, 23]
    assert read["single"].tolist() == [[1, 13]]
    assert read["parameter"].tolist() == [0, 1]


def test_declared_classes_become_placeholders_and_others_are_refused(tmp_path: Path) -> None:
    config = Call(
        Name("omegaconf.dictconfig", "DictConfig"), new=True, state={"_content": {"a": Call(Name("pathlib", "PosixPath"), ("x",))}}
    )
    path = torch_save(tmp_path / "a.pt", {"config": config, "weight": NUMBERS})
    with pytest.raises(ArchiveError, match=r"'omegaconf\.dictconfig\.DictConfig', which is no plain data"):
        load(path)
    with pytest.raises(ArchiveError, match="PosixPath"):
        load(path, opaque=("omegaconf", "pathlib.PurePath", "path"))
    read = load(path, opaque=("omegaconf", "pathlib.PosixPath"))
    assert read["config"] == Opaque("omegaconf.dictconfig.DictConfig")
    np.testing.assert_array_equal(read["weight"], NUMBERS)


def test_compressed_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(PUBLISHED / "chunk_1.pt") as source, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    with pytest.raises(ArchiveError, match="compressed or encrypted: unpack the archive and zip it without compression"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.5, 0.9, 0.97, 0.9999])
def test_truncated_archives(tmp_path: Path, share: float) -> None:
    content = (PUBLISHED / "chunk_0.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArchiveError, match="cut short or damaged" if share > 0 else "no zip archive"):
        load(tmp_path / "a.pt")


def test_files_that_are_no_torch_archives(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read: No such file"):
        load(tmp_path / "absent.pt")
    with pytest.raises(ArchiveError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "old.pt").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001))
    with pytest.raises(ArchiveError, match=r"of torch before 1\.6; then load it with torch and save it again"):
        load(tmp_path / "old.pt")
    np.savez(tmp_path / "arrays.npz", a=NUMBERS)
    with pytest.raises(ArchiveError, match=r"without data\.pkl"):
        load(tmp_path / "arrays.npz")
    with pytest.raises(ArchiveError, match="big-endian"):
        load(torch_save(tmp_path / "big.pt", NUMBERS, byteorder=b"big"))
    with zipfile.ZipFile(tmp_path / "two.pt", "w") as file:
        file.writestr("a/data.pkl", pickled(1))
        file.writestr("b/version", "3")
    with pytest.raises(ArchiveError, match="single top folder"):
        load(tmp_path / "two.pt")


def test_a_damaged_storage_fails_verify_and_a_damaged_pickle_load(tmp_path: Path) -> None:
    path = torch_save(tmp_path / "a.pt", NUMBERS)
    content = path.read_bytes()
    path.write_bytes(content.replace(np.float32(23).tobytes(), np.float32(24).tobytes()))
    assert load(path).max() == 24
    with pytest.raises(ArchiveError, match="'data/0' fails its checksum"):
        verify(path)
    path.write_bytes(content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"))
    with pytest.raises(ArchiveError, match=r"data\.pkl fails its checksum"):
        load(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [(20, 1 << 40, "compressed"), (24, 1 << 40, "compressed"), (16, 7, "not where"), (10, 8, "compressed"), (8, 0x809, "compressed")],
    ids=["compressed size", "size", "offset", "method", "encrypted"],
)
def test_a_directory_that_lies(tmp_path: Path, field: int, value: int, message: str) -> None:
    path = torch_save(tmp_path / "a.pt", NUMBERS)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.index(b"a/data/0", content.index(b"PK\x01\x02")))
    extra = entry + 46 + len("a/data/0") + 4
    # Sizes and offset lie in the 64-bit extra field: size, compressed size, offset.
    at, code = {20: (extra + 8, "<Q"), 24: (extra, "<Q"), 16: (extra + 16, "<Q")}.get(field, (entry + field, "<H"))
    struct.pack_into(code, content, at, value)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=message):
        load(path)


def test_sizes_beyond_the_archive_and_names_given_twice(tmp_path: Path) -> None:
    path = torch_save(tmp_path / "a.pt", NUMBERS)
    content = bytearray(path.read_bytes())
    extra = content.index(b"a/data/0", content.index(b"PK\x01\x02")) + len("a/data/0") + 4
    struct.pack_into("<QQ", content, extra, 1 << 40, 1 << 40)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="ends outside the archive"):
        load(path)
    path.write_bytes(torch_save(tmp_path / "b.pt", [NUMBERS, NUMBERS]).read_bytes().replace(b"b/data/1", b"b/data/0"))
    with pytest.raises(ArchiveError, match="there twice"):
        load(path)


def test_huge_metadata_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"data\.pkl has 68719476736 bytes"):
        load(write_archive(tmp_path / "a.pt", {"data.pkl": 1 << 36}, {}))  # type: ignore[dict-item]
    with pytest.raises(ArchiveError, match="byteorder has 68719476736 bytes"):
        load(write_archive(tmp_path / "a.pt", {"data.pkl": pickled(1), "byteorder": 1 << 36}, {}))  # type: ignore[dict-item]
    # The directory: 16 MiB + 1 bytes of it, by the archive's last record.
    path = write_archive(tmp_path / "a.pt", {"data.pkl": pickled(1)}, {"0": 1 << 25})
    content = path.read_bytes()[-98:]
    with path.open("r+b") as file:
        file.seek(-98, 2)
        file.write(content[:40] + struct.pack("<QQ", (16 << 20) + 1, 1 << 20) + content[56:])
    with pytest.raises(ArchiveError, match="its directory claims 16777217 bytes"):
        load(path)


def test_a_large_file_is_mapped_not_read(tmp_path: Path) -> None:
    size = 96 << 30
    path = torch_save(tmp_path / "a.pt", tensor("0", "Float", size // 4, (size // 16, 4), (4, 1)), {"0": size})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = load(path)
    assert values.nbytes == size
    assert values[::100_000_000].tolist() == [[0.0] * 4] * 65
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_an_archive_may_be_renamed(tmp_path: Path) -> None:
    shutil.copy(PUBLISHED / "chunk_0.pt", tmp_path / "other.pt")
    assert load(tmp_path / "other.pt")["obs"].shape == (6, 41, 24)

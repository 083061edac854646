"""Reads files of `torch.save` without torch and without running anything in them: zip archives of one pickle and raw tensor storages.

Tensors are read-only NumPy views of one memory mapping of the file, at the offsets that the archive's directory gives, so that opening
100 GB costs no memory. The pickle, which says what the tensors are, is interpreted by `torch_pickle`.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from pwm_jax.torch_pickle import ArchiveError, Opaque, TensorView, interpret
from pwm_jax.untrusted import shown

__all__ = ["ArchiveError", "Opaque", "load", "verify"]

# A checkpoint of a thousand tensors has a pickle of 200 kB and a directory of 100 kB; a file that claims far more is not read.
MAX_METADATA_BYTES = 16 << 20
_LOCAL_HEADER, _LOCAL_HEADER_BYTES = b"PK\x03\x04", 30


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where one file of the archive lies in it."""

    offset: int
    size: int
    crc: int


@dataclasses.dataclass(frozen=True)
class _Archive:
    """A mapped zip archive and its files, by their names below its one folder."""

    path: Path
    mapping: mmap.mmap
    entries: dict[str, _Entry]

    def record(self, name: str) -> bytes:
        """Copy one small file; ArchiveError where it is large or damaged, KeyError where it is absent."""
        entry = self.entries[name]
        if entry.size > MAX_METADATA_BYTES:
            raise ArchiveError(f"{name} has {entry.size} bytes, more than that of any model or dataset: not read")
        content = self.mapping[entry.offset : entry.offset + entry.size]
        if zlib.crc32(content) != entry.crc:
            raise ArchiveError(f"{name} fails its checksum: the file is damaged, copy it again")
        return content

    def array(self, view: TensorView) -> np.ndarray:
        """The numbers of one tensor, not copied; ArchiveError where its storage is absent or of another size."""
        entry = self.entries.get(f"data/{view.key}")
        item = view.dtype.itemsize
        if entry is None or entry.size != view.count * item:
            held = "is absent" if entry is None else f"has {entry.size} bytes"
            raise ArchiveError(f"data/{shown(view.key)} {held}, its tensor needs {view.count * item}: the file is damaged, copy it again")
        strides = tuple(stride * item for stride in view.strides)
        return np.ndarray(view.shape, view.dtype, self.mapping, entry.offset + view.first * item, strides)


def load(path: str | Path, opaque: Collection[str] = ()) -> Any:
    """Read what `torch.save` wrote: nested dicts, lists, tuples and scalars, with read-only memory-mapped arrays in place of tensors.

    Sets become lists, an OrderedDict or TensorDict a dict, devices and dtypes `Opaque`. The arrays have the `mmap.mmap` of the file,
    which they share, as their `base`. None of them is read here: `verify` compares their bytes with the checksums.

    Args:
      path: the file.
      opaque: dotted names of classes, or of modules with all that is in them ("pathlib", "omegaconf", "typing.Any"), whose objects
        become `Opaque`. Nothing is imported either way.

    Raises:
      ArchiveError: the file is missing, cut short, compressed, foreign, or holds anything but plain data.
    """
    archive = _open(Path(path))
    try:
        if archive.entries.get("byteorder") and archive.record("byteorder") != b"little":
            raise ArchiveError("written on a big-endian machine: load it with torch and save it again on a little-endian one")
        if "data.pkl" not in archive.entries:
            raise ArchiveError("a zip archive without data.pkl, not a file of torch.save")
        return interpret(archive.record("data.pkl"), archive.array, opaque)
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error}") from error


def verify(path: str | Path) -> None:
    """Compare every byte of the archive's files with their checksums.

    Raises:
      ArchiveError: the file is missing, cut short, compressed, foreign or damaged.
    """
    archive = _open(Path(path))
    for name, entry in archive.entries.items():
        crc, end = 0, entry.offset + entry.size
        for first in range(entry.offset, end, MAX_METADATA_BYTES):
            crc = zlib.crc32(archive.mapping[first : min(first + MAX_METADATA_BYTES, end)], crc)
            # What was read through a mapping counts as the process's memory until it is told to go.
            archive.mapping.madvise(mmap.MADV_DONTNEED)
        if crc != entry.crc:
            raise ArchiveError(f"{path}: {shown(name)} fails its checksum: the file is damaged, copy it again")


class _BoundedFile(io.FileIO):
    """A file whose reads are bounded, since `zipfile` reads as many bytes as the archive's directory claims to have."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_METADATA_BYTES:
            raise zipfile.BadZipFile(f"its directory claims {size} bytes")
        return super().read(MAX_METADATA_BYTES if size is None or size < 0 else size) or b""


def _open(path: Path) -> _Archive:
    """Map the file and find the files in it; ArchiveError unless they lie uncompressed within it."""
    head = b""
    try:
        with _BoundedFile(str(path), "rb") as file:
            head = file.read(len(_LOCAL_HEADER))
            with zipfile.ZipFile(file) as directory:
                infos, end = directory.infolist(), directory.start_dir
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        if head == _LOCAL_HEADER:
            raise ArchiveError(f"{path} is cut short or damaged ({shown(str(error))}): copy it again") from error
        raise ArchiveError(
            f"{path} is no zip archive: it is damaged, foreign, or of torch before 1.6; then load it with torch and save it again"
        ) from error
    entries: dict[str, _Entry] = {}
    for info in infos:
        name = info.filename.partition("/")[2]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise ArchiveError(f"{path}: {shown(name)} is compressed or encrypted: unpack the archive and zip it without compression")
        header = mapping[info.header_offset : info.header_offset + _LOCAL_HEADER_BYTES]
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(_LOCAL_HEADER):
            raise ArchiveError(f"{path}: {shown(name)} is not where the archive's directory says: the file is damaged, copy it again")
        # The local header has lengths of its own: torch pads it so that the data behind it is aligned.
        offset = info.header_offset + _LOCAL_HEADER_BYTES + sum(struct.unpack("<HH", header[26:]))
        if name in entries or offset + info.file_size > end:
            raise ArchiveError(f"{path}: {shown(name)} is there twice or ends outside the archive: the file is damaged, copy it again")
        entries[name] = _Entry(offset, info.file_size, info.CRC)
    if len({info.filename.partition("/")[0] for info in infos}) != 1:
        raise ArchiveError(f"{path} is a zip archive without a single top folder, not a file of torch.save")
    return _Archive(path, mapping, entries)

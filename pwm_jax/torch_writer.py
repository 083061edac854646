"""Writes tensors as `torch.save` would, without torch: an uncompressed zip archive of one pickle and one file for each tensor.

`torch.load(..., weights_only=True)` reads it, and so does `torch_archive`.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}
_ALIGNMENT = 64


def save(path: str | Path, entry: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write {entry: {name: tensor}} of float32 or int64 arrays; an older file is replaced when the new one is whole.

    Raises:
        TypeError: an array has another type.
        OSError: the file cannot be written.
    """
    path = Path(path)
    arrays = [np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value) for value in tensors.values()]
    pickled = _pickled(entry, dict(zip(tensors, arrays, strict=True)))
    temporary = path.with_name(f".partial-{path.name}")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            _add(archive, f"{path.stem}/data.pkl", pickled)
            _add(archive, f"{path.stem}/byteorder", b"little")
            for number, array in enumerate(arrays):
                _add(archive, f"{path.stem}/data/{number}", array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            _add(archive, f"{path.stem}/version", b"3\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Append one file whose bytes begin at a multiple of 64, by an extra field of that length, as torch's do."""
    info = zipfile.ZipInfo(name)  # its date is fixed, so that the same tensors make the same file
    start = archive.fp.tell() + 30 + len(name.encode()) if archive.fp else 0
    padding = -(start + 4) % _ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(info, content)


def _pickled(entry: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """The pickle, protocol 2, opcode by opcode: pickle.Pickler would have to import the classes that it names."""
    items = b"".join(_text(name) + _tensor(str(number), array) for number, (name, array) in enumerate(tensors.items()))
    state = pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    whole = pickle.EMPTY_DICT + pickle.MARK + _text(entry) + state + pickle.SETITEMS
    return pickle.PROTO + bytes([2]) + whole + pickle.STOP


def _text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value) if value < 1 << 31 else pickle.LONG1 + bytes([8]) + struct.pack("<q", value)


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tensor(key: str, array: np.ndarray) -> bytes:
    """`_rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, backward_hooks=OrderedDict())`."""
    if array.dtype not in _STORAGES:
        raise TypeError(f"tensors of {array.dtype} are not written; convert them to {' or '.join(map(str, _STORAGES))}")
    storage = _tuple(_text("storage"), _global("torch", _STORAGES[array.dtype]), _text(key), _text("cpu"), _number(array.size))
    shape = _tuple(*map(_number, array.shape))
    strides = _tuple(*(_number(stride // array.itemsize) for stride in array.strides))
    hooks = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = _tuple(storage + pickle.BINPERSID, _number(0), shape, strides, pickle.NEWFALSE, hooks)
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE

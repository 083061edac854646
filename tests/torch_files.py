"""Writes files as `torch.save` does, byte layout and pickle opcodes, and as no honest program would; without torch."""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "u1": "Byte", "b1": "Bool"}


@dataclasses.dataclass(frozen=True)
class Name:
    """A global: GLOBAL 'module name'."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """`function(*arguments)` by REDUCE (or NEWOBJ), then BUILD with `state` unless it is None."""

    function: Any
    arguments: Any = ()
    state: Any = None
    new: bool = False


@dataclasses.dataclass(frozen=True)
class Storage:
    """A persistent id: ("storage", storage class, key, "cpu", number of elements)."""

    key: str
    kind: str
    count: int


def tensor(key: str, kind: str, count: int, shape: Sequence[int], strides: Sequence[int], first: int = 0) -> Call:
    """The pickle of a tensor that lies in storage `key`; nothing is checked."""
    hooks = Call(Name("collections", "OrderedDict"))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (Storage(key, kind, count), first, tuple(shape), tuple(strides), False, hooks))


def tensordict_2023(entries: Mapping[str, Any], batch_size: tuple[int, ...]) -> Call:
    """What tensordict 0.2 pickles; unlike 0.5 and later it has a class for the entries and is built by BUILD."""
    inner = Call(Name("tensordict.utils", "_StringOnlyDict"), new=True)
    state = {"_batch_size": Call(Name("torch", "Size"), (batch_size,)), "_device": None, "_lock_id": Call(Name("builtins", "set"), ([],))}
    return Call(Name("tensordict.tensordict", "TensorDict"), state={"_tensordict": _Filled(inner, entries), **state}, new=True)


def tensordict_current(entries: Mapping[str, Any], batch_size: tuple[int, ...]) -> Call:
    """What tensordict 0.5 to 0.14 pickle: `_make_td(TensorDict, state)` with a plain dict of entries."""
    device = Call(Name("torch", "device"), ("cpu",))
    state = {
        "_tensordict": dict(entries),
        "_device": device,
        "_batch_size": Call(Name("torch", "Size"), (batch_size,)),
        "_td_dim_names": None,
    }
    return Call(Name("tensordict._reductions", "_make_td"), (Name("tensordict._td", "TensorDict"), state))


@dataclasses.dataclass(frozen=True)
class _Filled:
    """A dictionary of a class, filled by SETITEMS."""

    made: Call
    entries: Mapping[str, Any]


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2, as `torch.save`; arrays become tensors of a storage each."""

    def __init__(self, file: io.BytesIO, storages: dict[str, bytes]) -> None:
        super().__init__(file, protocol=2)
        self.storages = storages

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return ("storage", Name("torch", f"{value.kind}Storage"), value.key, "cpu", value.count)
        return None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        match value:
            case Name(module, name):
                self.write(pickle.GLOBAL + f"{'__builtin__' if module == 'builtins' else module}\n{name}\n".encode())
            case Call(function, arguments, state, new):
                self.save(function)
                self.save(arguments)
                self.write(pickle.NEWOBJ if new else pickle.REDUCE)
                if state is not None:
                    self.save(state)
                    self.write(pickle.BUILD)
            case _Filled(made, entries):
                self.save(made)
                self._batch_setitems(entries.items())
            case np.ndarray():
                key = str(len(self.storages))
                self.storages[key] = np.ascontiguousarray(value).tobytes()
                strides = [stride // value.itemsize for stride in np.ascontiguousarray(value).strides]
                self.save(tensor(key, STORAGES[value.dtype.str[1:]], value.size, value.shape, strides))
            case _:
                super().save(value, save_persistent_id)


def pickled(value: Any, storages: dict[str, bytes] | None = None) -> bytes:
    """The pickle of `value`, whose arrays go to `storages`."""
    file = io.BytesIO()
    _Pickler(file, {} if storages is None else storages).dump(value)
    return file.getvalue()


def torch_save(path: Path, value: Any, storages: Mapping[str, bytes | int] | None = None, **records: bytes) -> Path:
    """Write `value` as `torch.save` does. `storages` holds those that `value` names itself; an int is a hole of so many zeros."""
    own: dict[str, bytes] = {}
    data = pickled(value, own)
    return write_archive(path, {"data.pkl": data, "byteorder": b"little", **records}, {**own, **(storages or {})})


def write_archive(path: Path, records: Mapping[str, bytes], storages: Mapping[str, bytes | int]) -> Path:
    """The zip layout of torch: uncompressed, each file aligned to 64 bytes by padding in its local header."""
    folder = path.stem
    files = {**records, **{f"data/{key}": content for key, content in storages.items()}, "version": b"3\n"}
    directory = b""
    with path.open("wb") as file:
        for name, content in files.items():
            directory += _write_file(file, f"{folder}/{name}".encode(), content)
        start = file.tell()
        file.write(directory)
        end = file.tell()
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, len(files), len(files), len(directory), start))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return path


def _write_file(file: io.BufferedWriter, name: bytes, content: bytes | int) -> bytes:
    """Write one file of the archive and return its entry in the directory, with 64-bit sizes as torch writes above 4 GiB."""
    size = content if isinstance(content, int) else len(content)
    crc = 0 if isinstance(content, int) else zlib.crc32(content)
    offset = file.tell()
    padding = -(offset + 30 + len(name) + 4) % 64
    common = struct.pack("<HHHHHIII", 45, 0x808, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF)
    file.write(
        b"PK\x03\x04" + common + struct.pack("<HH", len(name), 4 + padding) + name + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    )
    if isinstance(content, int):
        file.seek(size, io.SEEK_CUR)
    else:
        file.write(content)
    sizes = struct.pack("<HHQQQ", 1, 24, size, size, offset)
    return (
        b"PK\x01\x02" + struct.pack("<H", 45) + common
        + struct.pack("<HHHHHII", len(name), len(sizes), 0, 0, 0, 0, 0xFFFFFFFF) + name + sizes
    )  # fmt: skip

"""Interprets the pickle of a `torch.save` file as data, opcode by opcode: no name in it is ever imported, nothing in it is called.

The names of a closed table have a meaning here (a tensor, a dictionary, a TensorDict). Names that the caller declares opaque become
`Opaque` placeholders. Every other name, and every opcode that `torch.save` does not write, is refused. Work and depth are bounded, so
that a hostile pickle takes some 100 MB and a few seconds at most.
The names are those of the zip format of torch (1.6 and later) and of tensordict 0.2 to 0.14, which pickles otherwise since 0.5.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from pwm_jax.untrusted import shown

# A checkpoint of a thousand tensors has 50 000 opcodes, a dataset file a hundred.
_MAX_WORK = 1_000_000
_MAX_DEPTH = 100
_MAX_INTEGER_KEY = 1 << 32

_DTYPES: dict[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_DICTS = {"collections.OrderedDict", "tensordict.utils._StringOnlyDict"}
_SETS = {"builtins.set", "builtins.frozenset"}
_TENSORDICTS = {"tensordict.tensordict.TensorDict", "tensordict._td.TensorDict"}
_MAKE_TENSORDICT = "tensordict._reductions._make_td"
_KNOWN = {*_DTYPES, *_PARAMETERS, *_DICTS, *_SETS, *_TENSORDICTS, _TENSOR, _MAKE_TENSORDICT, "torch.Size"}
# Always opaque: devices, dtypes, and tensors that have a shape only.
_OPAQUE = {"torch.device", "torch._utils._rebuild_meta_tensor_no_storage"} | {
    f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
}

_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES"}
_LITERALS |= {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}


class ArchiveError(ValueError):
    """A file that is not a torch archive, is damaged, or holds what is not plain data; names the file, the reason and the remedy."""


@dataclasses.dataclass(frozen=True)
class Opaque:
    """What is left of an object that is no plain data: its class's name."""

    name: str


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor as the pickle describes it: elements of the storage `key` (of `count` in all) from `first` on, `strides` elements apart."""

    key: str
    dtype: np.dtype[Any]
    count: int
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    """A known name; what it means is decided where the pickle calls it."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


class _TensorDict(dict[Any, Any]):
    """The entries of a TensorDict; its batch size, device and locks are left out."""


def interpret(data: bytes, read: Callable[[TensorView], np.ndarray], opaque: Collection[str] = ()) -> Any:
    """What the pickle `data` describes, with arrays from `read` for its tensors; see `torch_archive.load`.

    Raises:
      ArchiveError: the pickle is damaged, or describes anything but plain data.
    """
    try:
        return _Interpreter(read, opaque).run(data)
    except ArchiveError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        raise ArchiveError(f"the pickle is not one of torch.save ({shown(str(error))}): the file is damaged or foreign") from error


class _Interpreter:
    """One run: a stack, the marks in it, a memo, and a budget of work."""

    def __init__(self, read: Callable[[TensorView], np.ndarray], opaque: Collection[str]) -> None:
        self._read, self._opaque = read, (*_OPAQUE, *opaque)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._budget = _MAX_WORK

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            self._spend(1)
            if opcode.name == "STOP":
                (value,) = self._stack
                _measure(value, {}, 0)
                return value
            self._execute(opcode.name, argument)
        raise ValueError("no STOP")

    def _spend(self, work: int) -> None:
        self._budget -= work
        if self._budget < 0:
            raise ArchiveError("data.pkl describes more objects than a model or a dataset has; not read")

    def _execute(self, name: str, argument: Any) -> None:
        push = self._stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in _LITERALS:
                push(argument)
            case _ if name in _CONSTANTS:
                push(_CONSTANTS[name])
            case _ if name in _EMPTY:
                push(_EMPTY[name]())
            case "MARK":
                self._marks.append(len(self._stack))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self._memo[argument])
            case "TUPLE":
                push(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self._take(int(name[-1]))))
            case "APPEND":
                self._extend(self._take(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._marked())
            case "SETITEM":
                self._set_items(self._take(2))
            case "SETITEMS":
                self._set_items(self._marked())
            case "GLOBAL":
                push(self._find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                push(self._find(*self._take(2)))
            case "REDUCE" | "NEWOBJ":
                push(self._call(*self._take(2)))
            case "BUILD":
                (state,) = self._take(1)
                self._build(self._stack[-1], state)
            case "BINPERSID":
                push(self._storage(*self._take(1)))
            case _:
                raise ArchiveError(f"data.pkl uses the opcode {name}, which torch.save never writes: it is damaged or hostile; not read")

    def _take(self, count: int) -> list[Any]:
        """Remove the last `count` objects, none from below the last mark."""
        first = len(self._stack) - count
        if first < (self._marks[-1] if self._marks else 0):
            raise ValueError("too few objects")
        taken = self._stack[first:]
        del self._stack[first:]
        return taken

    def _marked(self) -> list[Any]:
        return self._take(len(self._stack) - self._marks.pop())

    def _extend(self, items: Sequence[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise TypeError("items of what is no list")

    def _set_items(self, items: Sequence[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("entries of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys could be made to take for ever to hash or compare.
            if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_INTEGER_KEY)):
                raise TypeError(f"a dictionary's key of type {type(key).__name__}")
            target[key] = value

    def _find(self, module: Any, name: Any) -> _Global | Opaque:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in _KNOWN:
            return _Global(full)
        if any(full == entry or full.startswith(entry + ".") for entry in self._opaque):
            return Opaque(full)
        remedy = "if you trust the file, load it with torch and save its tensors as a plain dictionary"
        raise ArchiveError(f"data.pkl refers to {shown(full)}, which is no plain data (unpickling it would run code): not read; {remedy}")

    def _call(self, function: Any, arguments: Any) -> Any:
        """What the name `function`, applied to `arguments`, means."""
        if isinstance(function, Opaque):
            return function
        if not (isinstance(function, _Global) and isinstance(arguments, tuple)):
            raise ArchiveError("data.pkl calls an object of its own: it is damaged or hostile; not read")
        match function.name, arguments:
            case name, (_Storage() as storage, int(first), tuple(shape), tuple(strides), *_) if name == _TENSOR:
                return self._tensor(storage, first, shape, strides)
            case name, (np.ndarray() as parameter, *_) if name in _PARAMETERS:
                return parameter
            case name, () if name in _DICTS:
                return {}
            case name, (list() as members,) if name in _SETS:
                return members
            case "torch.Size", (tuple() as size,):
                return size
            case name, () if name in _TENSORDICTS:
                return _TensorDict()
            case name, (_Global(name=kind), dict() as state) if name == _MAKE_TENSORDICT and kind in _TENSORDICTS:
                tensordict = _TensorDict()
                self._build(tensordict, state)
                return tensordict
        raise ArchiveError(f"data.pkl uses {shown(function.name)} in an unknown way: its layout is foreign")

    def _build(self, target: Any, state: Any) -> None:
        """Give an object its state, of which only a TensorDict's entries are kept."""
        if isinstance(target, _TensorDict):
            entries = state["_tensordict"]
            if not isinstance(entries, dict):
                raise TypeError("a TensorDict without entries")
            self._spend(len(entries))
            target.update(entries)
        elif not isinstance(target, dict | Opaque):
            raise TypeError("a state for what has none")

    def _storage(self, reference: Any) -> _Storage:
        match reference:
            case ("storage", _Global(name=kind), str(key), str(), int(count)) if kind in _DTYPES and count >= 0:
                return _Storage(key, _DTYPES[kind], count)
        raise ArchiveError("data.pkl refers to something outside that is no tensor storage: its layout is foreign or hostile; not read")

    def _tensor(self, storage: _Storage, first: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> np.ndarray:
        if len(shape) != len(strides) or not all(type(number) is int and number >= 0 for number in (first, *shape, *strides)):
            raise ArchiveError("a tensor's shape, strides or offset are no natural numbers: the file is damaged or hostile")
        elements = math.prod(shape)
        last = first + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if elements and (elements > storage.count or last >= storage.count):
            problem = f"a tensor of {elements} elements does not lie within its storage of {storage.count}"
            raise ArchiveError(f"{problem}: the file is damaged, or the tensor was expanded; save `tensor.contiguous()`")
        # The stride of an axis without a second element has no meaning, and may be any number.
        used = tuple(stride if size > 1 else 1 for size, stride in zip(shape, strides, strict=True))
        return self._read(TensorView(storage.key, storage.dtype, storage.count, first if elements else 0, shape, used))


def _measure(value: Any, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """Nodes and height of the tree below `value`; ArchiveError where it is no tree of plain data, too deep, or endless.

    A list that holds another twice counts it twice: who walks through the result meets no more than `_MAX_WORK` nodes.
    """
    if value is None or isinstance(value, str | int | float | bytes | np.ndarray | Opaque):
        return 1, 0
    if not isinstance(value, dict | list | tuple):
        raise ArchiveError("data.pkl holds functions or classes in place of data: its layout is foreign")
    if id(value) not in known:
        nodes, height = 1, 0
        for child in value.values() if isinstance(value, dict) else value:
            if depth > _MAX_DEPTH:
                raise ArchiveError("data.pkl nests its objects without end: it is damaged or hostile; not read")
            child_nodes, child_height = _measure(child, known, depth + 1)
            nodes, height = nodes + child_nodes, max(height, child_height + 1)
        known[id(value)] = nodes, height
    nodes, height = known[id(value)]
    if nodes > _MAX_WORK or depth + height > _MAX_DEPTH:
        raise ArchiveError("data.pkl repeats or nests its objects beyond measure: it is damaged or hostile; not read")
    return nodes, height

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Call, Name, Storage, pickled, tensor, torch_save, write_archive

from pwm_jax.torch_archive import ArchiveError, load

NUMBERS = np.arange(24, dtype=np.float32)


def archive(path: Path, data: bytes, storages: dict[str, bytes | int] | None = None) -> Path:
    return write_archive(path / "made.pt", {"data.pkl": data, "byteorder": b"little"}, storages or {})


class Runs:
    """What an attacker would save: unpickling calls `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


NO_DATA, FOREIGN, UNKNOWN, MALFORMED = "no plain data", "layout is foreign", "in an unknown way", r"not one of torch\.save"
HOSTILE = {
    "os.system": (NO_DATA, pickled(Call(Name("os", "system"), ("touch hacked",)))),
    "protocol 4": (NO_DATA, pickle.dumps(Runs(exec, "open('hacked', 'w')"), protocol=4)),
    "eval": (NO_DATA, pickled(Call(Name("builtins", "eval"), ("open('hacked', 'w')",)))),
    "getattr": (NO_DATA, pickled(Call(Call(Name("builtins", "getattr"), (Name("torch", "Size"), "__class__")), ("x", (), {})))),
    "attribute of a known name": (NO_DATA, b"\x80\x04\x8c\x05torch\x8c\x0dSize.__init__\x93."),
    "attribute of a known function": (NO_DATA, pickled(Name("torch._utils", "_rebuild_tensor_v2.__globals__"))),
    "torch itself": (NO_DATA, pickled(Call(Name("torch", "load"), ("hacked",)))),
    "object by INST": ("opcode INST", b"(ios\nsystem\n."),
    "object by OBJ": ("opcode OBJ", b"(ctorch\nSize\no."),
    "extension registry": ("opcode EXT1", b"\x80\x02\x82\x01."),
    "persistent id as text": ("opcode PERSID", b"Phacked\n."),
    "persistent id of another kind": ("no tensor storage", b"\x80\x02" + pickled(("module", "os"))[2:-1] + b"Q."),
    "call of data": ("calls an object of its own", b"\x80\x02})R."),
    "call of a storage": ("calls an object of its own", pickled(Call(Storage("0", "Float", 1)))),
    "state of data": (MALFORMED, pickled(Call(Name("torch", "Size"), ((1,),), {"__class__": 1}))),
    "state of a function": (MALFORMED, b"\x80\x02ctorch\nSize\n}X\x08\x00\x00\x00__dict__K\x01sb."),
    "new object of a function": (UNKNOWN, pickled(Call(Name("torch._utils", "_rebuild_tensor_v2"), new=True))),
    "a function as data": (FOREIGN, pickled([Name("torch", "Size")])),
    "TensorDict of another class": (UNKNOWN, pickled(Call(Name("tensordict._reductions", "_make_td"), (Name("torch", "Size"), {})))),
    "TensorDict without entries": (MALFORMED, pickled(Call(Name("tensordict._td", "TensorDict"), new=True, state={}))),
    "parameter of a name": (UNKNOWN, pickled(Call(Name("torch._utils", "_rebuild_parameter"), (Name("torch", "Size"), True, {})))),
    "key to hash": ("key of type tuple", pickled({((1,), (2,)): 1})),
    "integer keys to collide": ("key of type int", pickled({k * (2**61 - 1): k for k in range(9)})),
    "items of a number": ("no list", b"\x80\x02K\x01K\x02a."),
    "items below a mark": ("too few objects", b"\x80\x02](\x85."),
    "empty stack": (MALFORMED, b"\x80\x02."),
    "two values": (MALFORMED, b"\x80\x02K\x01K\x02."),
    "no stop": (MALFORMED, b"\x80\x02K\x01"),
    "no memo": (MALFORMED, b"\x80\x02h\x05."),
    "no mark": (MALFORMED, b"\x80\x02t."),
    "nothing": (MALFORMED, b""),
    "negative length": (MALFORMED, b"\x80\x02\x8b\xff\xff\xff\xff."),
    "deep": ("nests its objects without end", b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b"."),
    "itself": ("nests its objects without end", b"\x80\x02]q\x00h\x00a."),
    "doubling": (
        "beyond measure", b"\x80\x02(]q\x00" + b"".join(b"](h%ch%ceq%c" % (k, k, k + 1) for k in range(90)) + b"t.",
    ),
    "many objects": ("more objects than", b"\x80\x02(" + b"]" * 1_100_000 + b"t."),
    "many copies": (
        "more objects than",
        b"\x80\x02(ctensordict._td\nTensorDict\nq\x00}q\x01X\x0b\x00\x00\x00_tensordict}("
        + b"".join(b"K%cN" % k for k in range(250)) + b"us" + b"h\x00)\x81h\x01b" * 9000 + b"t.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    reason, data = HOSTILE[name]
    with pytest.raises(ArchiveError, match=reason) as caught:
        load(archive(tmp_path, data, {"0": bytes(96)}))
    assert [path.name for path in tmp_path.iterdir()] == ["made.pt"]
    assert str(caught.value).startswith(f"{tmp_path / 'made.pt'}: ")
    assert "\n" not in str(caught.value)


def test_a_hostile_name_is_shown_escaped_and_short(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError) as caught:
        load(archive(tmp_path, pickled(Name("evil\x1b[2J" + "x" * 5000, "f"))))
    assert "\\x1b[2J" in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


TENSORS = {
    "more elements than stored": ("does not lie within", tensor("0", "Float", 24, (5, 5), (5, 1))),
    "beyond the end by strides": ("does not lie within", tensor("0", "Float", 24, (2, 2), (23, 1))),
    "beyond the end by offset": ("does not lie within", tensor("0", "Float", 24, (24,), (1,), 1)),
    "expanded": ("save `tensor.contiguous", tensor("0", "Float", 24, (10**12,), (0,))),
    "overflowing": ("does not lie within", tensor("0", "Float", 24, (2**62, 2**62), (2**62, 1))),
    "negative size": ("no natural", tensor("0", "Float", 24, (-2, -2), (2, 1))),
    "negative stride": ("no natural", tensor("0", "Float", 24, (4,), (-1,), 3)),
    "negative offset": ("no natural", tensor("0", "Float", 24, (4,), (1,), -4)),
    "size of another type": ("no natural", tensor("0", "Float", 24, (2.0,), (1,))),
    "other number of strides": ("no natural", tensor("0", "Float", 24, (4,), (1, 1))),
    "a storage of more bytes": ("has 96 bytes, its tensor needs", tensor("0", "Double", 24, (4,), (1,))),
    "a storage of fewer bytes": ("has 96 bytes, its tensor needs", tensor("0", "Byte", 24, (4,), (1,))),
    "a negative storage": ("no tensor storage", tensor("0", "Float", -1, (0,), (1,))),
    "an absent storage": ("is absent", tensor("1", "Float", 24, (4,), (1,))),
    "a path as storage": ("is absent", tensor("../data.pkl", "Byte", 1, (1,), (1,))),
    "too many axes": ("maximum supported dimension", tensor("0", "Float", 24, (1,) * 70, (1,) * 70)),
    "an unknown storage": ("no plain data", tensor("0", "QInt32", 24, (4,), (1,))),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path: Path, name: str) -> None:
    reason, described = TENSORS[name]
    with pytest.raises(ArchiveError, match=reason):
        load(torch_save(tmp_path / "a.pt", described, {"0": NUMBERS.tobytes()}))

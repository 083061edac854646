"""The guard finds what it is there for, and mutations are the same every time."""

import os
import pickle
import subprocess
from collections.abc import Callable
from typing import Any

import guard
import numpy as np
import pytest
from guard import HangError, Reader, guarded
from mutation import mutate_bytes, mutate_json


class Runs:
    def __reduce__(self) -> Any:
        return os.getpid, ()


HARMS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a command": (lambda _: os.system("true"), r"os\.system"),
    "a process": (lambda _: subprocess.run(["true"], check=True), r"subprocess\.Popen"),
    "text as code": (lambda _: exec("1 + 1"), "exec of <string> by test_guard"),
    "unpickling": (lambda _: pickle.loads(pickle.dumps(Runs())), r"pickle\.find_class"),
    "a file elsewhere": (lambda path: (path / "new").write_text("x"), "open .*new"),
    "a file removed elsewhere": (lambda path: (path / "old").unlink(), r"os\.remove"),
    "a new package": (lambda _: __import__("antigravity_of_no_package"), "import of antigravity_of_no_package"),
    "memory": (lambda _: np.ones(300 << 17), "KiB taken"),
}


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_found(tmp_path, name) -> None:
    act, message = HARMS[name]
    (tmp_path / "old").write_text("x")
    (tmp_path / "inside").mkdir()
    with pytest.raises(AssertionError, match=message), guarded(tmp_path / "inside"):
        act(tmp_path)
    with guarded(tmp_path / "inside"):
        (tmp_path / "inside" / "file").write_text("allowed")


def test_a_hang_ends_and_a_claim_of_memory_fails(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    with pytest.raises(HangError), guarded(tmp_path):
        while True:
            pass
    with pytest.raises(MemoryError), guarded(tmp_path):
        np.zeros(1 << 40)


def test_a_reader_s_faults_are_gathered(tmp_path) -> None:
    def fails(error: Exception) -> None:
        raise error

    reader = Reader(ValueError, tmp_path)
    assert reader.meet(lambda: fails(ValueError("a line that says what")), "good") is None
    assert not reader.faults
    reader.meet(lambda: fails(ValueError("two\nlines of message")), "lines")
    reader.meet(lambda: fails(KeyError("x")), "foreign")
    assert reader.meet(lambda: 3, "unfit", lambda found: found == 4) == 3
    assert [fault.split(":")[0] for fault in reader.faults] == ["lines", "foreign", "unfit"]
    assert (reader.accepted, reader.refused) == (1, 2)
    with pytest.raises(AssertionError, match="3 faults"):
        reader.done("all")


def test_mutations_change_something_and_are_repeatable() -> None:
    content, value = bytes(range(200)), {"a": [1, 2.5, {"b": "text"}], "c": None}
    first, second = (np.random.default_rng(7) for _ in range(2))
    kinds = set()
    for _ in range(300):
        what, changed = mutate_bytes(first, content, b"other" * 9)
        assert changed != content
        assert (what, changed) == mutate_bytes(second, content, b"other" * 9)
        kinds |= set(what.split("+"))
    assert kinds == {"flip", "edge", "truncate", "extend", "delete", "duplicate", "splice", "zero"}
    assert [mutate_json(first, value) for _ in range(50)] == [mutate_json(second, value) for _ in range(50)]
    assert mutate_bytes(first, b"")[1]

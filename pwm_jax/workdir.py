"""One run at a time in a working directory, by a lock that the operating system releases when the holder ends, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import IO


class WorkdirError(ValueError):
    """A working directory that another run holds, or that cannot be made or written; names the directory and the remedy."""


class WorkdirLock:
    """Context manager that holds `<workdir>/.lock`; makes the directory if it is missing.

    The file names its holder (process and host). The lock belongs to the open file, so it ends with the process, also on SIGKILL.
    With `wait` entry waits for another holder to end.

    Raises:
      WorkdirError: on entry, when another run holds the lock (names it) or the directory cannot be written.
    """

    def __init__(self, workdir: str | Path, wait: bool = False) -> None:
        self._path = Path(workdir).absolute() / ".lock"
        self._mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        self._file: IO[str] | None = None

    def __enter__(self) -> WorkdirLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._path, "a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise WorkdirError(f"cannot write in {self._path.parent}: {error.strerror}. Choose another --workdir.") from error
        try:
            fcntl.flock(file, self._mode)
        except BlockingIOError:
            file.seek(0)
            holder = _holder(file.read())
            file.close()
            raise WorkdirError(
                f"{self._path.parent} is in use by another run ({holder}). Wait for it, stop it, or choose another --workdir."
            ) from None
        except OSError as error:
            file.close()
            raise WorkdirError(f"cannot lock {self._path}: {error.strerror}. Choose a --workdir on a file system with locks.") from error
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
        file.flush()
        self._file = file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _holder(text: str) -> str:
    try:
        entry = json.loads(text[:1000])
        return f"process {int(entry['pid'])} on {ascii(entry['host'])[1:-1]}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its process is not known yet"

"""What every launcher shares: flags, the working directory, one-line errors, stopping and resuming, the compilation cache, timing.

A launcher is a function `main(config, workdir)` that imports what it needs inside itself, so that `--help` starts neither JAX
nor a simulator, and ends with `if __name__ == "__main__": launch.run(main, stage="<stage>", config="configs/<stage>.py")`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging as python_logging
import multiprocessing
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments import preemption
from experiments.settings import ConfigError, check_path, claim_config, nearest, release_config, to_dataclass
from pwm_jax.memory import keep_freed_memory
from pwm_jax.report import tracking
from pwm_jax.report.records import read_json, remove_partial
from pwm_jax.report.results import command_line
from pwm_jax.workdir import WorkdirLock

__all__ = ["ConfigError", "enable_compilation_cache", "run", "stage", "to_dataclass"]

Main = Callable[[ConfigDict, Path], None]

_ROOT = Path(__file__).resolve().parents[1]
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

flags.disclaim_key_flags()


def run(main: Main, *, stage: str | None, config: str, distributed: bool = False, beside: bool = False) -> NoReturn:
    """Parse the command line, lock the working directory, call `main(config, workdir)` and exit with its status.

    A fault that the project names (its own exception classes, a full disk, non-finite losses) ends in one line on stderr and
    status 2, or in a traceback with --debug; SIGTERM and Ctrl-C end in how to resume and status 143 or 130.

    Args:
      main: the launcher; gets the locked ConfigDict and the existing working directory, which no other run holds.
      stage: under which name the run is recorded (see `stage`); None for a launcher that records stages of its own.
      config: the config file used when --config is not given, relative to the current directory or to the project.
      distributed: whether several processes may share the run (--distributed). The first holds the directory and records the stage.
      beside: whether it may run while another run holds the working directory, which must be there: what it writes no stage reads.
    """
    default, sys.argv[1:] = found(config), _with_files_found(sys.argv[1:])
    try:
        _check_overrides(sys.argv[1:], default)
    except ConfigError as error:
        _fail(error)
    config_flags.DEFINE_config_file("config", default, "Config file and, after a colon, its preset. --config.FIELD=VALUE sets a field.")
    flags.DEFINE_string("workdir", None, "Directory that the run writes; give the same one again to resume.")
    flags.DEFINE_string("wandb", "", "Log the metrics to this project of Weights & Biases, too.")
    flags.DEFINE_boolean("debug", False, "Show the full traceback of an error.")
    if distributed:
        flags.DEFINE_string(
            "distributed",
            "",
            "This is one of several processes that share the run, all given the same --workdir: 'auto' on SLURM, TPU pods and Open MPI, "
            "elsewhere ADDRESS:PORT,NUMBER,INDEX of the first process, of the processes and of this one.",
        )
    app.run(lambda _: _run(main, stage, beside), flags_parser=_parse)
    raise AssertionError("app.run does not return")


@contextlib.contextmanager
def stage(workdir: Path, name: str, config: ConfigDict) -> Iterator[None]:
    """Run one stage of a working directory that the caller holds: its config checked first, its record written at the end.

    The record is entry `name` of config.json, provenance.json (command, commit, hardware) and timing.json, where the wall
    seconds of a stage's interrupted and resumed parts add up. A stage that fails before it has written anything leaves no
    record, so that its config can be corrected in the same directory.

    Raises:
      ConfigError: the stage ran here before with another config; names the first field that differs.
    """
    start = time.perf_counter()
    new = claim_config(workdir, name, config)
    files = set(workdir.rglob("*"))
    began = True
    try:
        yield
    except Exception:
        began = not new or files != set(workdir.rglob("*"))
        raise
    finally:
        if began:
            _record(workdir, name, config, time.perf_counter() - start)
        else:
            release_config(workdir, name)


def _record(workdir: Path, name: str, config: ConfigDict, seconds: float) -> None:
    from pwm_jax.report.workdir import record_stage

    timing = workdir / "timing.json"
    earlier = read_json(timing).get(name, 0.0) if timing.exists() else 0.0
    record_stage(workdir, name, seconds=earlier + seconds, config=config.to_dict(), accelerators=_accelerators())


def _accelerators() -> list[str]:
    """Kinds of the accelerators in use; none where JAX was not needed."""
    jax = sys.modules.get("jax")
    return sorted({device.device_kind for device in jax.devices() if device.platform != "cpu"}) if jax else []


def enable_compilation_cache(name: str = "xla") -> None:
    """Let JAX keep compiled programs in the user's cache directory, so that a second run compiles nothing.

    The small ones, too: there are hundreds, of kilobytes each. JAX_COMPILATION_CACHE_DIR wins when set. Call it before JAX is imported.
    Compiled CPU code is tied to the processor's features, so processors that differ and share a home directory get directories of their
    own.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pwm_jax" / f"{name}-{_processor()}"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _use_all_cores() -> None:
    """Let JAX's CPU backend have a device a core, so that policies extracted side by side use them all; JAX_NUM_CPU_DEVICES wins."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores))


def _processor() -> str:
    try:
        features = re.search(r"^(flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        features = None
    text = features.group() if features else os.uname().machine
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _parse(argv: Sequence[str]) -> list[str]:
    """Parse flags; a mistake in them is one line and status 2."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error)
    if rest[1:]:
        _fail(f"unexpected argument {rest[1]!r}; every argument is a flag: --config.field=value, --workdir=DIR")
    if not flags.FLAGS.workdir:
        _fail("no working directory; say where the run writes: --workdir=DIR")
    return rest


def found(path: str) -> str:
    """A config file as named, or where there is none, the one of that name beside this package: installed, or of another checkout."""
    name, colon, preset = path.partition(":")
    beside = _ROOT / name
    return f"{beside}{colon}{preset}" if not Path(name).is_file() and beside.is_file() else path


def _with_files_found(arguments: Sequence[str]) -> list[str]:
    """The arguments with what --config names found; ml_collections itself looks in the current directory alone."""
    words = [re.sub(r"^(--?config=)(.+)", lambda match: match[1] + found(match[2]), argument) for argument in arguments]
    for i, argument in enumerate(arguments[:-1]):
        if re.fullmatch("--?config", argument):
            words[i + 1] = found(arguments[i + 1])
    return words


def _check_overrides(arguments: Sequence[str], path: str) -> None:
    """Find mistyped fields and files before ml_collections does, which would answer with a traceback."""
    for i, argument in enumerate(arguments):
        match = re.match(r"--?config(?:=(.*)|$)", argument)
        if match:
            path = match.group(1) if match.group(1) is not None else "".join(arguments[i + 1 : i + 2])
    config = load(path)
    for argument in arguments:
        override = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if override:
            check_path(config, override.group(1))


def load(path: str) -> ConfigDict:
    """The config of a file and, after a colon, its preset; ConfigError where there is no such file, or its code fails."""
    name, *preset = path.split(":", 1)
    file = Path(name)
    if not file.is_file():
        folders = (file.parent, Path("configs"), _ROOT / "configs")
        choices = {str(p).removeprefix(f"{_ROOT}/") for folder in folders for p in folder.glob("*.py") if p.name != "__init__.py"}
        raise ConfigError(f"no config file {name!r}{nearest(name, choices)}")
    try:
        config = runpy.run_path(name)["get_config"](*preset)
    except Exception as error:  # whatever the file's own code raises
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{path}: get_config returned {type(config).__name__}, not a ConfigDict")
    return config


def _run(main: Main, name: str | None, beside: bool) -> None:
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(levelname)s: %(message)s"))
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)
    enable_compilation_cache()
    _use_all_cores()
    keep_freed_memory()
    preemption.listen()
    values = flags.FLAGS
    try:
        workdir = Path(values.workdir)
        if values.wandb:
            tracking.enable(values.wandb)
        with contextlib.ExitStack() as stack:
            if beside:
                if not workdir.is_dir():
                    raise ConfigError(f"no directory {workdir}: give the --workdir of a run")
            elif "distributed" not in values or not values.distributed or _join(values.distributed) == 0:
                stack.enter_context(WorkdirLock(workdir))
                remove_partial(workdir)
                if name:
                    stack.enter_context(stage(workdir, name, values.config))
            main(values.config, workdir)
    except (KeyboardInterrupt, preemption.TerminatedError) as stop:
        print(f"\nStopped. The same command resumes from the last checkpoint:\n  {command_line()}", file=sys.stderr)
        _leave(143 if isinstance(stop, preemption.TerminatedError) else 130)
    except Exception as error:
        if values.debug or not _is_named(error):
            raise
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = f"{error}: no room below {values.workdir}. Free space and give the same command again." if full else error
        print(f"error: {said}", file=sys.stderr)
        _leave(2)


def _join(processes: str) -> int:
    """Join the processes of a run; returns the index of this one. Raises ConfigError for what is no description of them."""
    import jax

    try:
        if processes == "auto":
            jax.distributed.initialize()
        else:
            address, number, index = processes.split(",")
            jax.distributed.initialize(address, int(number), int(index))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed={processes}: {error}. Give 'auto' on a cluster that JAX knows, or ADDRESS:PORT,NUMBER,INDEX"
        ) from error
    return jax.process_index()


def _leave(status: int) -> NoReturn:
    """End the process and its children at once.

    Python's own ending would wait for a sweep's workers, and crash where threads of JAX are in the midst of a program.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        for child in multiprocessing.active_children():
            child.terminate()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _is_named(error: Exception) -> bool:
    """Whether the message alone tells the user what to do: the project's own classes, the file system's, non-finite losses."""
    own = type(error).__module__.split(".")[0] in ("pwm_jax", "experiments")
    return own or isinstance(error, FloatingPointError) or (isinstance(error, OSError) and error.errno in _DISK_FAULTS)


def _fail(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

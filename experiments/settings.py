"""From an ml_collections ConfigDict to frozen dataclasses, and to `config.json`; every mistake is one line that names the field."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict

from pwm_jax.report.records import read_json, write_json
from pwm_jax.report.results import portable
from pwm_jax.untrusted import shown

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that is missing, mistyped or not the one that a working directory was made with."""


def to_dataclass(cls: type[T], config: ConfigDict | Mapping[str, Any], *, where: str = "config", **given: Any) -> T:
    """Build the frozen dataclass `cls` from a config, nested dataclasses too; the config and `given` share its fields between them.

    Lists become tuples and ints floats where the field says so; nothing else is converted.

    Args:
      cls: a dataclass; its annotations are checked (Optional, Literal, tuples, mappings and nested dataclasses are understood).
      config: one entry a field. Fields with a default may be left out.
      where: the config's own dotted name, for messages.
      **given: fields that the config does not have but the launcher knows, such as sizes read from a dataset.

    Raises:
      ConfigError: an unknown or missing field (names the nearest), a value of the wrong type, or one that `cls` itself refuses.
    """
    if not _is_mapping(config):
        raise ConfigError(f"{where} must be a section of fields, not {shown(config)}")
    values = _items(config)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in fields or name in given:
            raise ConfigError(f"unknown field {where}.{shown(str(name))[1:-1]}{nearest(name, fields.keys() - given.keys(), where)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values and name not in given:
            raise ConfigError(f"missing field {where}.{name}{nearest(name, values, where)}")
    hints = typing.get_type_hints(cls)
    converted = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**converted, **given)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def nearest(name: str, known: Iterable[str], where: str = "") -> str:
    """Return the end of a message about `name`, unknown at `where`: '; did you mean ...?', or the list of what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {where}.{close[0]}?" if where else f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(choices)}" if choices else ""


def check_path(config: ConfigDict, path: str, root: str = "config") -> None:
    """Check that the dotted `path` is a field of `config`.

    Raises:
      ConfigError: it is not; names the nearest field at that place, or the place in the config that has a field of that name.
    """
    node: Any = config
    where = root
    for name in path.split("[")[0].split("."):
        fields = _items(node) if _is_mapping(node) else {}
        if name not in fields:
            elsewhere = [p for p in flatten(config, root) if p.endswith(f".{name}")]
            hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(name, fields, where)
            raise ConfigError(f"unknown field {where}.{shown(name)[1:-1]}{hint}")
        node, where = fields[name], f"{where}.{name}"


def flatten(config: ConfigDict | Mapping[str, Any], root: str = "config") -> dict[str, Any]:
    """Return the leaves of a nested config by dotted path."""
    flat: dict[str, Any] = {}
    for name, value in _items(config).items():
        path = f"{root}.{name}"
        flat.update(flatten(value, path) if _is_mapping(value) else {path: value})
    return flat


# How much of a study is measured, where its rows go, and what hardware is used; what was measured stays what it is.
EXTENDING = {f"config.sweep.{name}" for name in ("seeds", "per_batch", "processes", "measure", "publish")} | {
    f"config.{name}"
    for name in ("num_workers", "pretrain.devices", "pretrain.shard_parameters", "export.source", "export.formats", "evaluate.methods")
}


def claim_config(workdir: Path, stage: str, config: ConfigDict) -> bool:
    """Write the whole resolved config of a stage to `<workdir>/config.json`, or check that the one there is equal but for `EXTENDING`.

    Of a study's variants those that both have are compared. A field that the earlier one lacks, since the code that wrote it did not
    have it yet, is equal at its default.

    Returns:
      Whether it was written: False for a stage that ran here before.

    Raises:
      ConfigError: the stage ran here with another config (names the first field that differs), or the config is not JSON.
    """
    path = workdir / "config.json"
    stages = read_json(path) if path.exists() else {}
    try:
        text = json.dumps(config.to_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the config cannot be written as JSON: {error}") from error
    if stage not in stages:
        write_json(path, {**stages, stage: json.loads(text)})
        return True
    from configs import base

    texts = (text, json.dumps(stages[stage]), json.dumps(base.get_config().to_dict()))
    now, earlier, defaults = (flatten(json.loads(portable(t))) for t in texts)
    shared = _variants(json.loads(text)) & _variants(stages[stage])  # a study may be given others
    for name in [name for name in (*now, *earlier) if name not in EXTENDING and _is_compared(name, shared)]:
        here, there = (repr(flat[name]) if name in flat else "absent" for flat in (now, earlier))
        added = name not in earlier and name in defaults and repr(defaults[name]) == here
        if here != there and not added:
            where, was, given = (shown(text)[1:-1] for text in (name, there, here))
            raise ConfigError(
                f"{stage} ran in {workdir} with another config: {where} was {was}, is {given}. Give the earlier one or another --workdir."
            )
    return False


def _variants(config: Mapping[str, Any]) -> set[str]:
    return set(config.get("variants", {}))


def _is_compared(name: str, variants: set[str]) -> bool:
    of, _, path = name.removeprefix("config.").partition(".")
    return of != "variants" or path.partition(".")[0] in variants


def release_config(workdir: Path, stage: str) -> None:
    """Take a stage's entry out of config.json again, for a stage that failed before it did anything."""
    path = workdir / "config.json"
    write_json(path, {name: entry for name, entry in read_json(path).items() if name != stage})


def _is_mapping(value: Any) -> bool:
    return isinstance(value, ConfigDict | Mapping)


def _items(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.items())


def _convert(annotation: Any, value: Any, where: str) -> Any:
    """Check `value` against a field's annotation and return it as the field holds it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if dataclasses.is_dataclass(annotation) and _is_mapping(value):
        return to_dataclass(annotation, value, where=where)  # type: ignore[arg-type]
    if origin is Literal:
        if value in arguments:
            return value
        hint = nearest(value, [a for a in arguments if isinstance(a, str)]) if isinstance(value, str) else ""
        raise ConfigError(f"{where} must be one of {', '.join(map(repr, arguments))}, not {shown(value)}{hint}")
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return _convert_tuple(arguments, value, where)
    plain = origin or annotation
    if plain is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{where} is too large a number") from error
    if isinstance(plain, type) and issubclass(plain, Mapping) and _is_mapping(value):
        return value.to_dict() if isinstance(value, ConfigDict) else dict(value)
    if isinstance(value, plain) and not (isinstance(value, bool) and plain in (int, float)):
        return value
    raise ConfigError(f"{where} must be of type {getattr(annotation, '__name__', annotation)}, not {type(value).__name__} ({shown(value)})")


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in arguments:
        return None
    choices = [a for a in arguments if a is not types.NoneType]
    for choice in choices[:-1]:
        try:
            return _convert(choice, value, where)
        except ConfigError:
            continue
    return _convert(choices[-1], value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    element = [arguments[0]] * len(value) if arguments[1:] == (...,) else list(arguments)
    if len(element) != len(value):
        raise ConfigError(f"{where} must have {len(element)} entries, not {len(value)}")
    return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(element, value, strict=True)))

"""Wrong configurations: every field of every section with values of every type, overrides, and a damaged config.json."""

import copy
import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
import pytest
from absl import flags
from guard import Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_flags
from mutation import STRANGE, counts, mutate_bytes, mutate_json

from configs import base, debug
from experiments import launch, run
from experiments.settings import EXTENDING, ConfigError, check_path, claim_config, flatten, to_dataclass
from pwm_jax.report.records import RecordError

FIXED = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
SIZES = dict(obs_dim=3, action_dim=2, action_dims=(2, 1), discounts=(0.99, 0.95))
GIVEN = {"model": SIZES, "collect": {"name": "mine"}}
PLAIN = {"collect": {"kind": "random", "episodes": 2}}
DEFAULT = base.get_config().to_dict()
FIELDS = [
    (section, field.name)
    for section, cls in run.sections().items()
    for field in dataclasses.fields(cls)
    if field.name not in GIVEN.get(section, {})
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([v for v in STRANGE if v != v or v != 1]),
    lambda parts: (
        st.lists(parts, max_size=4) | st.lists(parts, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=8), parts, max_size=4)
    ),
    max_leaves=8,
)


def section_of(section: str) -> dict[str, Any]:
    return copy.deepcopy(PLAIN.get(section) or DEFAULT[section])


def is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation says, told here apart from the code under test."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin is tuple and parts[1:] == (...,):
        return type(value) is tuple and all(is_of(entry, parts[0]) for entry in value)
    if origin is not None and origin is not tuple:
        return isinstance(value, Mapping) if origin is Mapping else any(is_of(value, part) for part in parts)
    return value is None if annotation in (None, NoneType) else type(value) is annotation


def build(section: str, fields: dict[str, Any]) -> Any:
    cls = run.sections()[section]
    return cls, to_dataclass(cls, fields, where=f"config.{section}", **GIVEN.get(section, {}))


def right(found: tuple[type, Any]) -> bool:
    cls, made = found
    hints = typing.get_type_hints(cls)
    return all(is_of(getattr(made, field.name), hints[field.name]) for field in dataclasses.fields(made))


@counts(len(FIELDS) * 2, len(FIELDS) * len(STRANGE))
def test_every_field_with_values_of_every_type(tmp_path, count):
    """What is accepted is of the field's type, and finite."""
    reader = Reader(ConfigError, tmp_path)
    pairs = [(section, name, value) for section, name in FIELDS for value in STRANGE]
    for at in np.random.default_rng(0).permutation(len(pairs))[:count]:
        section, name, value = pairs[at]
        fields = section_of(section) | {name: value}
        reader.meet(lambda section=section, fields=fields: build(section, fields), f"{section}.{name} {value!r:.40}", right)
    reader.done("fields of configurations")


@FIXED
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_a_field_with_any_value(tmp_path_factory, field, value):
    section, name = field
    reader = Reader(ConfigError, tmp_path_factory.getbasetemp())
    reader.meet(lambda: build(section, section_of(section) | {name: value}), f"{section}.{name} {value!r:.80}", right)
    assert not reader.faults, reader.faults


@FIXED
@given(
    path=st.text(max_size=20) | st.sampled_from(list(flatten(DEFAULT))).map(lambda path: path.removeprefix("config.")),
    cut=st.integers(0, 30),
)
def test_a_path_of_any_text(tmp_path_factory, path, cut):
    reader, config = Reader(ConfigError, tmp_path_factory.getbasetemp()), base.get_config()
    known = {part for leaf in flatten(config, "") for part in (leaf[1:], *(leaf[1:].rsplit(".", n)[0] for n in (1, 2)))}
    for text in (path, path[:cut], path[:cut] + "x" + path[cut:]):
        reader.meet(lambda text=text: check_path(config, text) or True, f"{text!r}", lambda _, text=text: text.split("[")[0] in known)
    assert not reader.faults, reader.faults


def checked(config: ConfigDict) -> None:
    """`run.check`, with what a launcher would show in one line as ConfigError, and anything else as it is."""
    try:
        run.check(config)
    except Exception as error:
        if launch._is_named(error):
            raise ConfigError(str(error)) from error
        raise


VALUES = [
    "abc",
    "",
    "1e999",
    "nan",
    "(1,",
    "[1",
    "{",
    "__import__('os').system('touch hacked')",
    "1,2",
    "(1,2)",
    "None",
    "True",
    "-1",
    "9" * 5000,
]


@pytest.mark.parametrize(
    "name", ["pretrain.steps", "world_model.lr", "model.mlp_hidden", "tasks", "model.regulariser", "online.save_replay"]
)
def test_an_override_of_any_text(tmp_path, monkeypatch, capsys, name):
    """As the command line has it: one line and status 2, or a config that converts or is refused in turn."""
    monkeypatch.chdir(tmp_path)
    reader = Reader((SystemExit, ConfigError), tmp_path)  # type: ignore[arg-type]
    for value in VALUES:
        known = flags.FlagValues()
        monkeypatch.setattr(launch.flags, "FLAGS", known)
        config_flags.DEFINE_config_file("config", str(Path(base.__file__)), flag_values=known)
        flags.DEFINE_string("workdir", str(tmp_path), "", flag_values=known)

        def parse(value=value, known=known):
            launch._parse(["x", f"--config.{name}={value}"])
            checked(known["config"].value)
            return True

        reader.meet(parse, f"{name}={value}")
        err = capsys.readouterr().err
        assert err.count("\n") <= 1, err
    assert not [fault for fault in reader.faults if "its message is no line: '2'" not in fault], reader.faults
    assert not (tmp_path / "hacked").exists()


@counts(40, 600)
def test_a_damaged_config_of_a_working_directory(tmp_path, count):
    """A stage goes on only with the configuration that the directory was made with."""
    config, path = debug.get_config(), tmp_path / "config.json"
    claim_config(tmp_path, "pretrain", config)
    claim_config(tmp_path, "extract", config)
    whole = path.read_bytes()
    rng, reader = np.random.default_rng(count), Reader((ConfigError, RecordError), tmp_path)
    for number in range(count):
        if rng.uniform() < 0.7:
            what, text = mutate_json(rng, json.loads(whole))
            path.write_text(text)
        else:
            what, changed = mutate_bytes(rng, whole, whole[::-1])
            path.write_bytes(changed)
        before = path.read_bytes()
        claimed = reader.meet(lambda: [claim_config(tmp_path, "pretrain", config)], f"{number}: {what}")
        if claimed == [False]:
            stored, wanted = json.loads(before)["pretrain"], json.loads(whole)["pretrain"]
            kept = {name: value for name, value in flatten(wanted).items() if name not in EXTENDING}
            assert all(flatten(stored).get(name, value) == value for name, value in kept.items()), what
        path.write_bytes(whole)
    reader.done("config.json")


@counts(60, 700)
def test_a_mutated_configuration(tmp_path, count):
    """All sections as `experiments.run` checks them before any work."""
    rng, reader = np.random.default_rng(count), Reader(ConfigError, tmp_path)
    whole = json.loads(json.dumps(debug.get_config().to_dict()))
    for number in range(count):
        what, text = mutate_json(rng, whole)
        try:
            config = ConfigDict(json.loads(text))
        except (RecursionError, ValueError, AttributeError, KeyError):  # ConfigDict's own refusals
            continue

        reader.meet(lambda config=config: checked(config) or True, f"{number}: {what}")
    reader.done("whole configurations")

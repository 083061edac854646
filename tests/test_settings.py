"""Configs to dataclasses and to config.json: conversions, and one line for each kind of mistake."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from ml_collections import ConfigDict, config_dict

from experiments.settings import ConfigError, check_path, claim_config, flatten, nearest, to_dataclass
from pwm_jax.report.workdir import record_stage


@dataclasses.dataclass(frozen=True)
class Model:
    """A nested part."""

    obs_dim: int
    hidden: tuple[int, ...] = (256,)
    kind: Literal["simnorm", "none"] = "simnorm"

    def __post_init__(self) -> None:
        if self.obs_dim < 1:
            raise ValueError(f"obs_dim must be positive, not {self.obs_dim}")


@dataclasses.dataclass(frozen=True)
class Study:
    """One field of each kind."""

    model: Model
    lr: float
    tasks: tuple[str, ...]
    span: tuple[int, float] = (1, 2.0)
    limit: int | None = None
    verbose: bool = False
    notes: Mapping[str, int] = dataclasses.field(default_factory=dict)


def study_config(**changes) -> ConfigDict:
    fields = {"model": {"obs_dim": 24, "hidden": (512, 512)}, "lr": 1, "tasks": ["walker-run", "mw-reach"], **changes}
    return ConfigDict(fields).lock()


def test_a_config_becomes_a_frozen_dataclass():
    config = study_config(span=[3, 4], limit=config_dict.placeholder(int), notes={"a": 1})
    study = to_dataclass(Study, config)
    expected = Study(Model(24, (512, 512)), lr=1.0, tasks=("walker-run", "mw-reach"), span=(3, 4.0), limit=None, notes={"a": 1})
    assert study == expected
    assert type(study.lr) is float
    assert type(study.span[1]) is float
    assert type(study.notes) is dict


def test_given_fields_complete_the_config():
    assert to_dataclass(Model, ConfigDict({"kind": "none"}), obs_dim=3) == Model(3, kind="none")
    with pytest.raises(ConfigError, match=r"unknown field config\.obs_dim"):
        to_dataclass(Model, ConfigDict({"obs_dim": 3}), obs_dim=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lrr": 1.0}, r"unknown field config\.lrr; did you mean config\.lr\?"),
        ({"model": {"obs_dim": 1, "hiden": (1,)}}, r"unknown field config\.model\.hiden; did you mean config\.model\.hidden\?"),
        ({"model": {"hidden": (1,)}}, r"missing field config\.model\.obs_dim; there are: hidden"),
        ({"model": {"obs_dim": 0}}, r"config\.model: obs_dim must be positive, not 0"),
        ({"model": {"obs_dim": 1, "kind": "simnrom"}}, r"model\.kind must be one of 'simnorm', 'none', not 'simnrom'; did you"),
        ({"model": 3}, r"config\.model must be of type Model, not int \(3\)"),
        ({"lr": "fast"}, r"config\.lr must be of type float, not str \('fast'\)"),
        ({"lr": True}, r"config\.lr must be of type float, not bool"),
        ({"limit": 1.5}, r"config\.limit must be of type int, not float \(1\.5\)"),
        ({"tasks": "walker-run"}, r"config\.tasks must be of type tuple.*, not str"),
        ({"tasks": ("walker-run", 3)}, r"config\.tasks\[1\] must be of type str, not int"),
        ({"span": (1, 2, 3)}, r"config\.span must have 2 entries, not 3"),
        ({"verbose": 1}, r"config\.verbose must be of type bool, not int"),
    ],
)
def test_each_mistake_names_its_field(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        to_dataclass(Study, study_config(**changes))
    assert "\n" not in str(caught.value)


def test_paths_of_overrides_are_checked():
    config = study_config()
    for path in ("lr", "model.obs_dim", "model", "tasks[0]"):
        check_path(config, path)
    with pytest.raises(ConfigError, match=r"unknown field config\.model\.obs_dmi; did you mean config\.model\.obs_dim\?"):
        check_path(config, "model.obs_dmi")
    with pytest.raises(ConfigError, match=r"unknown field config\.obs_dim; did you mean config\.model\.obs_dim\?"):
        check_path(config, "obs_dim")
    with pytest.raises(ConfigError, match=r"unknown field config\.lr\.x"):
        check_path(config, "lr.x")


def test_nearest_lists_what_there_is_when_nothing_is_near():
    assert nearest("zzz", ["lr", "batch"]) == "; there are: batch, lr"
    assert nearest("x", []) == ""


def test_flatten_names_leaves_by_dotted_path():
    expected = {"config.model.obs_dim": 24, "config.model.hidden": (512, 512), "config.lr": 1, "config.tasks": ("walker-run", "mw-reach")}
    assert flatten(study_config(tasks=("walker-run", "mw-reach"))) == expected


def test_a_stage_keeps_its_config(tmp_path):
    claim_config(tmp_path, "pretrain", study_config())
    claim_config(tmp_path, "extract", study_config(lr=3))
    before = (tmp_path / "config.json").read_text()
    claim_config(tmp_path, "pretrain", study_config(tasks=("walker-run", "mw-reach")))
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["extract"] == {"model": {"obs_dim": 24, "hidden": [512, 512]}, "lr": 3, "tasks": ["walker-run", "mw-reach"]}
    with pytest.raises(ConfigError, match=r"pretrain ran in .*config\.model\.obs_dim was 24, is 39"):
        claim_config(tmp_path, "pretrain", study_config(model={"obs_dim": 39, "hidden": (512, 512)}))
    with pytest.raises(ConfigError, match=r"config\.verbose was absent, is True"):
        claim_config(tmp_path, "pretrain", study_config(verbose=True))
    with pytest.raises(ConfigError, match=r"config\.model\.hidden was \[512, 512\], is absent"):
        claim_config(tmp_path, "pretrain", study_config(model={"obs_dim": 24}))


def test_a_field_that_came_after_the_run_is_equal_at_its_default(tmp_path):
    """So that a run begun with an earlier version can be gone on with; `model.matmul_dtype` is a field of configs/base.py."""
    claim_config(tmp_path, "pretrain", study_config(model={"latent_dim": 8}))
    assert not claim_config(tmp_path, "pretrain", study_config(model={"latent_dim": 8, "matmul_dtype": "float32"}))
    with pytest.raises(ConfigError, match=r"config\.model\.matmul_dtype was absent, is 'bfloat16'"):
        claim_config(tmp_path, "pretrain", study_config(model={"latent_dim": 8, "matmul_dtype": "bfloat16"}))


def test_a_study_may_be_measured_further_and_published_later(tmp_path):
    sweep = dict(study="contact", seeds=(0,), processes=1, measure=True, publish="")
    claim_config(tmp_path, "gradients", study_config(sweep=sweep))
    assert not claim_config(tmp_path, "gradients", study_config(sweep={**sweep, "seeds": (0, 1), "processes": 2, "publish": "results"}))
    with pytest.raises(ConfigError, match=r"config\.sweep\.study was 'contact', is 'other'"):
        claim_config(tmp_path, "gradients", study_config(sweep={**sweep, "study": "other"}))


def test_a_recorded_stage_still_matches_its_config(tmp_path):
    config = study_config(tasks=(str(Path.cwd() / "data"), str(Path.home() / "x")))
    claim_config(tmp_path, "pretrain", config)
    record_stage(tmp_path, "pretrain", seconds=1.0, config=config.to_dict())
    claim_config(tmp_path, "pretrain", config)


@pytest.mark.parametrize("value", [Path("data"), float("nan")])
def test_a_config_that_is_not_json_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        claim_config(tmp_path, "pretrain", study_config(lr=value))

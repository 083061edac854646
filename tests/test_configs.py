"""Every config builds, and every section of it is exactly the dataclass that a launcher makes of it."""

import dataclasses
import importlib
import runpy
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from configs import base, stiffness
from configs.regularisers import VARIANTS
from experiments import ablation, compare, members, run, stages
from experiments.collect import SourceConfig
from experiments.settings import ConfigError
from pwm_jax import pwm
from pwm_jax.envs.tasks import TaskSet, task_spec

# The other configs have sections of their own.
COMPARISONS = ("brax_agents", "compare", "stiffness")
STUDIES = (
    "ball_wall",
    "choices",
    "contact",
    "cost",
    "double_pendulum",
    "generalisation",
    "generalist_study",
    "gradients",
    "landscape",
    "regularisers",
    "regularisers_hopper",
)
OTHERS = ("__init__", *COMPARISONS, *STUDIES)
CONFIGS = sorted(path for path in (Path(__file__).resolve().parents[1] / "configs").glob("*.py") if path.stem not in OTHERS)

SECTIONS = {section: cls for section, cls in run.sections().items() if section != "collect"}
# Fields that no user sets, since the task set or the stage does.
ELSEWHERE = {"model": {"obs_dim", "action_dim", "action_dims", "discounts"}, "world_model": {"decay_steps"}, "policy": {"decay_steps"}}

# tasks_and_formats.md 3.3: learnable parameters of task embedding, encoder, dynamics and reward.
PUBLISHED_PARAMETERS = {
    "1M-mt30": 632_101,
    "5M-mt30": 1_599_717,
    "19M-mt30": 5_603_301,
    "48M-mt30": 18_983_909,
    "317M-mt30": 108_280_805,
    "1M-mt80": 640_741,
    "5M-mt80": 1_650_277,
    "19M-mt80": 6_772_837,
    "48M-mt80": 19_188_581,
    "317M-mt80": 108_347_045,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_base_config_is_its_dataclass_with_its_defaults(section):
    elsewhere = ELSEWHERE.get(section, set())
    fields = {field.name: field.default for field in dataclasses.fields(SECTIONS[section]) if field.name not in elsewhere}
    assert base.get_config()[section].to_dict() == fields


def test_the_base_config_has_no_section_without_a_dataclass():
    config = base.get_config()
    sections = {name for name, value in config.items() if isinstance(value, ConfigDict)}
    assert sections == {*SECTIONS, "collect"}
    known = {field.name for field in dataclasses.fields(SourceConfig)}
    for source in config.collect.sources.values():
        assert set(source.keys()) <= known - {"name"}


@pytest.mark.parametrize(("preset", "count"), PUBLISHED_PARAMETERS.items())
def test_a_preset_has_the_published_number_of_parameters(preset, count):
    config = base.get_config(preset)
    task_set = stages.task_set_of(config)
    assert task_set.num_tasks == int(preset[-2:])
    algorithm = stages.algorithm_of(config, task_set)
    params = jax.eval_shape(lambda: pwm.init_world_model(algorithm, jax.random.key(0)).params)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("size", base.SIZES)
def test_a_size_alone_is_its_mt30_preset(size):
    assert base.get_config(size).to_dict() == base.get_config(f"{size}-mt30").to_dict()


def test_an_unknown_preset_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown preset '48m'; there are 1M, 5M, 19M, 48M, 317M, 1M-mt30, .*317M-mt80"):
        base.get_config("48m")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_locks_and_becomes_dataclasses(path):
    config = runpy.run_path(str(path))["get_config"]()
    config.lock()
    with pytest.raises(AttributeError, match="locked"):
        config.stpes = 1
    run.check(config)
    # Exactly the fields of the base: a preset that invents one would be dropped silently by no stage but read by none either.
    for section in SECTIONS:
        assert sorted(config[section].keys()) == sorted(base.get_config()[section].keys())
    assert sorted(config.keys()) == sorted(base.get_config().keys())


def test_the_check_finds_a_mistake_in_any_section():
    for section in SECTIONS:
        config = base.get_config()
        config[section].stpes = 1
        with pytest.raises(ConfigError, match=rf"unknown field config\.{section}\.stpes"):
            run.check(config)
    config = base.get_config()
    config.collect.sources.random.kind = "rnadom"
    with pytest.raises(ConfigError, match=r"config\.collect\.sources\.random\.kind must be one of .* did you mean random"):
        run.check(config)


def test_the_check_finds_methods_that_the_model_cannot_serve():
    config = base.get_config()
    config.evaluate.methods = ("extracted", "mppi")
    config.mppi.guide = "q"
    with pytest.raises(ConfigError, match="needs a model with Q heads"):
        run.check(config)
    config.evaluate.methods, config.model.task_dim = ("generalist",), 0
    with pytest.raises(ConfigError, match="needs a task embedding"):
        run.check(config)


def test_an_online_config_of_several_tasks_has_a_task_embedding():
    online = runpy.run_path(str(next(path for path in CONFIGS if path.stem == "online")))["get_config"]
    assert online("cartpole-swingup").model.task_dim == 0
    several = online("pendulum-swingup,reacher-easy")
    assert several.model.task_dim > 0
    assert TaskSet.from_names(several.tasks).names == ("pendulum-swingup", "reacher-easy")


@pytest.mark.parametrize("name", ["regularisers", "regularisers_hopper", "choices", "generalist_study", "generalisation"])
def test_every_variant_of_a_study_is_what_the_stages_take(name):
    names = (",".join(VARIANTS),) if name.startswith("regularisers") else ()
    config = importlib.import_module(f"configs.{name}").get_config(*names)
    for variant in config.variants:
        run.check(ablation.variant_of(config, variant))


def test_settings_of_vectorisable_fields_share_a_program_and_others_do_not():
    config = importlib.import_module("configs.regularisers").get_config(",".join(VARIANTS))
    groups = {}
    for variant in config.variants:
        groups.setdefault(members.shared(ablation.variant_of(config, variant)), []).append(variant)
    assert sorted(groups.values(), key=len)[-1] == ["simnorm", "simnorm-cold", "simnorm-warm"]
    assert len(groups) == len(config.variants) - 2
    config = importlib.import_module("configs.choices").get_config("default,lr-third,lr-triple,horizon-1")
    assert len({members.shared(ablation.variant_of(config, variant)) for variant in config.variants}) == 2


def test_the_study_of_stiffness_is_a_comparison_of_known_tasks(tmp_path):
    runs = compare.runs_of(stiffness.get_config("0.25,1").lock(), tmp_path)
    names = [f"brax-hopper-generalized{end}" for end in ("-stiffness0.25", "")]
    assert [(task, method) for task in names for method in ("pwm", "shac", "ppo")] == [(made.task, made.method) for made in runs]
    assert [task_spec(name).obs_dim for name in names] == [11, 11]

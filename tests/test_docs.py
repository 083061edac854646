"""The documentation: its code runs, its reference is whole, and the site builds without a broken link."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from experiments import ablation, launch
from experiments.run import sections

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose Python is run elsewhere, with the files that it needs: test_export_launcher.py, test_own_tasks.py.
ELSEWHERE = {"use_elsewhere.md", "own_tasks.md"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_a_page_s_python_runs(page):
    names: dict = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if page.name == "tutorial.md":
        reward = names["metrics"]["imagined_reward"]
        assert reward[-1] > reward[0] + 0.1
        np.testing.assert_allclose(names["action"], [[-1.0, 1.0]], atol=0.2)  # towards the origin
    elif page.name == "comparing.md":
        variants = names["get_config"]().variants
        assert [ablation.variant_of(names["get_config"](), name).model.simnorm_dim for name in variants] == [8, 8, 16, 8]
    elif page.name == "README.md":
        assert sorted(names["get_config"]().collect.sources) == ["expert", "random", "replay"]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `python -m ...` of a page, continued lines joined and comments left out."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    found = re.findall(r"python -m ([^\n`]+)", text)
    return [shlex.split(command.rstrip(')."' if command.count('"') % 2 else ")."), comments=True) for command in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_modules_configurations_and_fields_that_there_are(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for module, *arguments in commands(page):
        assert importlib.util.find_spec(module) is not None, module
        given = dict(argument.split("=", 1) for argument in arguments if argument.startswith("--config"))
        config = given.pop("--config", "")
        if not config.startswith("configs/"):
            continue  # a user's own
        launch._check_overrides(arguments, config)
        monkeypatch.setattr(sys, "argv", ["launcher", *arguments])  # where ml_collections looks for fields
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", config, flag_values=values)
        for name in ("workdir", "distributed", "wandb"):
            flags.DEFINE_string(name, "", "", flag_values=values)
        assert values(sys.argv) == ["launcher"], arguments


def test_the_configuration_reference_has_every_field_with_its_default():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["config_page"]()
    for section in sections():
        if section != "collect":
            part = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
            assert part is not None, section
            for name, value in base.get_config()[section].items():
                assert re.search(rf"^\| `{name}` \| .+ \| `{re.escape(repr(value))}` \|$", part.group(1), re.MULTILINE), f"{section}.{name}"
    assert f"| `collect.envs_per_task` | `{base.get_config().collect.envs_per_task}` |" in page
    assert "| `processes` | int | `1` |" in page.partition("## sweep (studies)")[2]
    assert "| `kind` | `random`, `expert`, `policy`, `dataset` |  |" in page


def test_the_site_builds_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.relative_to(tmp_path / "site").as_posix(): path.read_text() for path in (tmp_path / "site").rglob("index.html")}
    assert {".", "tutorial", "notebooks", "own_tasks", "use_elsewhere", "reference/config", "reference/api", "results"} <= set(pages)
    assert "update_world_model" in pages["reference/api"]
    for name, text in pages.items():
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", text)
        assert not fetched, f"{name} fetches {fetched}"
        for picture in re.findall(r"<img[^>]+src=\"?([^\s\">]+)", text):
            assert (tmp_path / "site" / name / picture).resolve().exists(), f"{name} lacks {picture}"

"""Hooks of mkdocs: pages made from the code, which are the configuration's fields, the Python reference, and RESULTS.md."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def config_page() -> str:
    """Every section: what its dataclass says, then a table of fields with types and the defaults of configs/base.py."""
    from configs import base
    from experiments.compare import CompareConfig
    from experiments.run import sections
    from experiments.sweep import SweepConfig
    from pwm_jax.analysis.world_model import MeasureConfig

    defaults = base.get_config()
    lines = ["# Configuration", "", inspect.cleandoc(base.__doc__ or ""), ""]
    lines += ["A field is set by `--config.SECTION.FIELD=VALUE`. Defaults are those of `configs/base.py`; the other files of `configs/`"]
    lines += ["change what they need.", "", "| field | default |", "|---|---|"]
    plain = {**defaults, **{f"collect.{name}": value for name, value in defaults.collect.items()}}
    lines += [f"| `{name}` | `{value!r}` |" for name, value in plain.items() if not hasattr(value, "items")]
    of_studies = {"sweep": SweepConfig, "measure": MeasureConfig, "compare": CompareConfig}
    for section, cls in {**sections(), **of_studies}.items():
        title = {"collect": "collect.sources.NAME"}.get(section, f"{section} (studies)" if section in of_studies else section)
        values = {} if section == "collect" or section in of_studies else defaults[section]
        lines += ["", f"## {title}", "", inspect.cleandoc(cls.__doc__ or ""), "", "| field | type | default |", "|---|---|---|"]
        kinds = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.name in values or not values:  # the others are what tasks or stages say
                default = values.get(field.name, field.default)
                shown = "" if default is dataclasses.MISSING else f"`{default!r}`"
                lines.append(f"| `{field.name}` | {_shown(kinds[field.name])} | {shown} |")
    return "\n".join(lines) + "\n"


def _shown(kind: Any) -> str:
    """A type in words."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if typing.get_origin(kind) is tuple:
        return f"tuple of {_shown(parts[0])}"
    if parts:
        return " or ".join(map(_shown, parts))
    return "nothing" if kind is type(None) else kind.__name__


def api_page() -> str:
    """Every public module of the package, with what its docstrings say."""
    lines = ["# Python reference", ""]
    for path in sorted((ROOT / "pwm_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__" or len(parts) == 2:
            lines += [f"::: {'.'.join(parts[:-1] if parts[-1] == '__init__' else parts)}", ""]
    return "\n".join(lines)


def results_page() -> str:
    """RESULTS.md, its pictures where they lie in the site."""
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", text)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    made = {"reference/config.md": config_page(), "reference/api.md": api_page(), "results.md": results_page()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files outside the site are named, not linked to."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)

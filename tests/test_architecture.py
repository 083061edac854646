"""The structure of the code: imports point down only, simulators and JAX start only when needed, modules are short and described."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The unit of a module is the first name below `pwm_jax`; a unit imports itself and units of lower levels.
LEVELS = [
    {"types", "config", "digests", "event_loops", "memory", "portable", "torch_writer", "untrusted"},
    {"ops", "checkpoint", "report", "workdir", "torch_pickle"},
    {"layers", "optimisers", "envs", "torch_archive"},
    {"networks"},
    {"actor_terms", "simulated", "tdmpc2"},
    {"data", "pwm", "evaluation", "export", "tdmpc2_checkpoint"},
    {"training"},
    {"baselines", "analysis"},
]
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}

SIMULATORS = {"mujoco", "dm_control", "metaworld", "brax"}
# Modules that import a simulator at their top; only a function may import them in turn.
_SIMULATED = (
    "brax_tasks",
    "double_pendulum",
    "engines",
    "humanoid",
    "locomotion",
    "mjx_env",
    "models",
    "muscle",
    "quadruped",
    "reset",
    "swing_up",
)
ADAPTERS = {"pwm_jax.envs.custom_tasks", *(f"pwm_jax.envs.simulators.{name}" for name in _SIMULATED)}
# What the launchers share once a stage runs; only a function may import it, like JAX itself.
RUNNING = {"experiments.members", "experiments.stages"}

FOLDERS = ("pwm_jax", "experiments", "configs", "tests", "benchmarks")
MAX_LINES = 300


def files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a module imports; `from a import b` gives a.b. Only what runs on import, where `top_level`."""
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_for_type_checkers(node)
        if not (top_level and deferred):
            nodes.extend(ast.iter_child_nodes(node))


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def unit(name: str) -> str | None:
    """The unit of a dotted name below `pwm_jax`, None elsewhere and for the bare package."""
    parts = name.split(".")
    return parts[1] if parts[0] == "pwm_jax" and len(parts) > 1 else None


def test_every_module_has_a_level():
    assert {unit(module_name(p)) for p in files("pwm_jax")} - {None} <= LEVEL.keys()


def test_imports_point_down_only():
    wrong = [
        f"{module_name(path)} imports {name}"
        for path in files("pwm_jax")
        for name in imports(path)
        if (here := unit(module_name(path))) and (there := unit(name)) and there != here and LEVEL.get(there, 99) >= LEVEL[here]
    ]
    assert wrong == []


def test_the_algorithm_knows_neither_environments_nor_data():
    assert [name for name in imports(ROOT / "pwm_jax" / "pwm.py") if unit(name) in ("envs", "data", "report", "checkpoint")] == []


def test_evaluation_knows_a_policy_only_as_a_function():
    assert [name for name in imports(ROOT / "pwm_jax" / "evaluation.py") if unit(name) in ("networks", "ops", "checkpoint")] == []


def test_configs_import_only_ml_collections():
    wrong = [
        f"{module_name(path)} imports {name}"
        for path in files("configs")
        for name in imports(path)
        if name.split(".")[0] not in ("ml_collections", "configs", "__future__")
    ]
    assert wrong == []


def test_the_library_imports_neither_launchers_nor_configs_nor_tests():
    wrong = [
        f"{module_name(path)} imports {name}"
        for path in files("pwm_jax")
        for name in imports(path)
        if name.split(".")[0] in ("experiments", "configs", "tests", "benchmarks")
    ]
    assert wrong == []


def test_simulators_are_imported_inside_their_adapters():
    wrong = [
        f"{module_name(path)} imports {name} at its top"
        for path in files("pwm_jax", "experiments", "configs")
        if module_name(path) not in ADAPTERS
        for name in imports(path, top_level=True)
        if name.split(".")[0] in SIMULATORS or any(f"{name}.".startswith(f"{adapter}.") for adapter in ADAPTERS)
    ]
    assert wrong == []


def loaded_after_importing(modules: list[str]) -> set[str]:
    """Top-level packages that are loaded once a fresh process has imported `modules`."""
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_library_starts_no_simulator():
    modules = [name for name in map(module_name, files("pwm_jax")) if name not in ADAPTERS]
    loaded = loaded_after_importing(modules)
    assert "jax" in loaded
    assert loaded & SIMULATORS == set()


def test_importing_launchers_configs_and_environments_starts_neither_jax_nor_a_simulator():
    launchers = [name for name in map(module_name, files("experiments", "configs")) if name not in RUNNING]
    modules = ["pwm_jax", "pwm_jax.envs", "pwm_jax.envs.simulators", "pwm_jax.envs.worker", *launchers]
    loaded = loaded_after_importing(modules)
    assert "absl" in loaded
    assert loaded & (SIMULATORS | {"jax", "flax", "orbax"}) == set()


def test_every_package_has_its_init_and_every_module_a_docstring():
    for path in files("pwm_jax", "experiments", "configs", "benchmarks"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"
        if path.is_relative_to(ROOT / "pwm_jax"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_no_module_is_longer_than_a_reader_can_hold():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files(*FOLDERS)}
    assert {path: n for path, n in lengths.items() if n > MAX_LINES} == {}

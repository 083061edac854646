"""The notebooks run from top to bottom at a small size, and those committed show their whole run and nothing of where it was made."""

import json
import re
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import jax
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from configs import tdmpc2
from experiments import stages
from pwm_jax import pwm, tdmpc2_checkpoint
from pwm_jax.envs.tasks import TaskSet

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ["gradients", "tdmpc2_model", "tour"]
MAX_BYTES = 3_000_000  # of all three together
LOCAL = re.compile(re.escape(str(ROOT)) + r"|(?<![\w.-])/(home|root|tmp|var|Users|mnt|opt|usr)/|[A-Z]:\\\\")


def read(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook: Any) -> int:
    """The index of the cell of parameters."""
    (index,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    return index


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a notebook with other parameters; returns it and what the expressions `asked` for are at its end, as JSON has it."""
    for variable, value in {"TMPDIR": tmp_path, "IPYTHONDIR": tmp_path, "JUPYTER_RUNTIME_DIR": tmp_path, "PYTHONPATH": ROOT}.items():
        monkeypatch.setenv(variable, str(value))

    def run(name: str, parameters: dict[str, Any], url: str = "", **asked: str) -> tuple[Any, dict[str, Any]]:
        notebook = read(name)
        for cell in notebook.cells:
            cell.source = re.sub(r'^URL = ".*"', f'URL = "{url}"', cell.source, flags=re.MULTILINE) if url else cell.source
        changed = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
        assert {line.split(" = ")[0] for line in changed.splitlines()} <= set(
            re.findall(r"^(\w+) =", notebook.cells[tagged(notebook)].source, re.M)
        )
        notebook.cells.insert(tagged(notebook) + 1, nbformat.v4.new_code_cell(changed))
        dump = ", ".join(f"{key!r}: {expression}" for key, expression in asked.items())
        notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{dump}}}))"))
        # A cell that raises ends in a CellExecutionError here, with its traceback.
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
        return notebook, json.loads(notebook.cells[-1].outputs[0].text)

    return run


def shown(notebook: Any, kind: str) -> list[str]:
    """The outputs of a MIME type, in their order."""
    return [output.data[kind] for cell in code_cells(notebook) for output in cell.outputs if kind in output.get("data", {})]


def test_the_tour_learns_a_model_and_two_policies(execute):
    notebook, found = execute(
        "tour",
        dict(PRETRAIN_STEPS=20, EXTRACT_STEPS=2, EPISODES=1),
        loss="[row['loss/reward_loss'] for row in model_log]",
        heldout="model_log[-1]['heldout/reward_loss']",
        updates="policies.state.step.tolist()",
        expected="[p[0].tolist() for p in predictions.values()]",
        returns="returns.tolist()",
        recorded="{name: float(values.mean()) for name, values in recorded.items()}",
    )
    assert found["loss"][-1] < 0.9 * found["loss"][0]
    assert np.isfinite(found["heldout"])
    assert found["updates"] == [2, 2]
    assert np.shape(found["expected"]) == (2, 60)
    assert np.isfinite(found["expected"]).all()
    assert np.shape(found["returns"]) == (2, 1)
    assert all(0 <= value <= 1000 for row in found["returns"] for value in row)
    assert found["recorded"] == pytest.approx({"cartpole-balance": 325, "cartpole-swingup": 366}, abs=1)  # as RESULTS.md has them
    assert (len(shown(notebook, "image/png")), len(shown(notebook, "image/gif"))) == (5, 3)
    titles = shown(notebook, "text/markdown")[1:]
    assert [round(row[0]) for row in found["returns"]] == [int(re.search(r"return (\d+)", title)[1]) for title in titles]


def test_a_file_of_tdmpc2_s_layout_is_written_read_and_learnt_from(execute, tmp_path: Path):
    notebook, found = execute(
        "tdmpc2_model",
        dict(PRETRAIN_STEPS=1, EXTRACT_STEPS=1, EPISODES=2),
        file="str(FILE.resolve())",
        shapes="{name: list(array.shape) for name, array in state.items()}",
        means="{name: e.value for name, e in estimates.items()}",
        step="int(series(rows, names['real return'])[0][-1])",
    )
    with zipfile.ZipFile(found["file"]) as archive:  # what torch.load wants of a file
        assert any(name.endswith("/data.pkl") for name in archive.namelist())
    assert found["shapes"]["_task_emb.weight"] == [2, 16]
    assert found["shapes"]["_dynamics.0.weight"] == [192, 128 + 16 + 1]
    assert found["shapes"]["_Qs.params.0"] == [2, 192, 128 + 16 + 1]
    assert found["step"] == 1
    assert sorted(found["means"]) == ["data", "extracted", "random"]
    assert found["means"]["data"] == pytest.approx(325, abs=1)
    assert 0 <= found["means"]["extracted"] <= 1000
    assert f"| {found['means']['extracted']:.0f} |" in shown(notebook, "text/markdown")[-1]
    assert len(shown(notebook, "image/gif")) == 1


@pytest.mark.slow
def test_a_downloaded_file_goes_the_same_way(execute, tmp_path: Path):
    config = tdmpc2.get_config("1M-mt30")
    algorithm = stages.algorithm_of(config, stages.task_set_of(config))
    model = jax.device_get(jax.jit(lambda key: pwm.init_world_model(algorithm, key))(jax.random.key(0)))
    tdmpc2_checkpoint.write(tmp_path / "published.pt", algorithm.model, model.params, model.q.target_params)
    _, found = execute(
        "tdmpc2_model",
        dict(DOWNLOAD=True, EXTRACT_STEPS=1, EPISODES=1),
        url=(tmp_path / "published.pt").as_uri(),
        tasks="task_set.num_tasks",
        row="row",
        hidden="list(algorithm.model.mlp_hidden)",
        means="{name: e.value for name, e in estimates.items()}",
    )
    assert (found["tasks"], found["row"], found["hidden"]) == (30, TaskSet.from_names("mt30").index("cartpole-balance"), [384, 384])
    assert 0 <= found["means"]["extracted"] <= 1000


@pytest.mark.slow
def test_gradients_are_measured_and_the_published_rows_drawn(execute):
    notebook, found = execute(
        "gradients",
        dict(SAMPLES=16, UPDATES=2, HORIZONS=(1, 2), POINTS=3, CONTACT_TASK="toy-double-pendulum", CONTACT_HORIZONS=(1, 2)),
        pendulum="{name: [stats.variance.tolist(), stats.esnr.tolist()] for name, stats in pendulum.items()}",
        contact="sorted(contact)",
        squares="{name: square.tolist() for name, square in squares.items()}",
    )
    assert sorted(found["pendulum"]) == ["H=16", "H=3", "simulator"]
    for values in found["pendulum"].values():
        assert np.shape(values) == (2, 2)
        assert np.isfinite(values).all()
        assert (np.array(values) > 0).all()
    assert found["contact"] == ["simnorm", "simulator"]
    heights = np.array(found["squares"]["simulator"])
    assert heights.shape == (3, 3)
    assert np.abs(heights).max() <= 2  # sums of two heights in [-1, 1]
    assert len(shown(notebook, "image/png")) == 7
    tables = "\n".join(shown(notebook, "text/markdown"))
    assert "| mjx-humanoid | 21 | simulator | 16 | 6e+03 | 0.0043 |" in tables
    assert "| brax-hopper-spring | 2 | simulator | 16 | 0.16 | 0.76 |" in tables


def test_there_are_no_others():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_was_run_whole(name: str):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr" and "Warning" in output.text]
    assert len(shown(notebook, "image/png")) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_does_not_tell_where_it_was_run(name: str):
    notebook = read(name)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                output.data[kind] = ""  # base64 holds every short word by chance
            assert not LOCAL.search(json.dumps(output)), output
        cell.outputs = []
    assert not LOCAL.search(json.dumps(notebook))
    assert LOCAL.search(json.dumps("saved in /tmp/abc/x.npz"))


def test_committed_notebooks_are_small():
    assert sum((NOTEBOOKS / f"{name}.ipynb").stat().st_size for name in NAMES) < MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    assert all((NOTEBOOKS / target).exists() for target in re.findall(r"\]\((?!https?://)([^)#]+)", text))
    assert all((ROOT / target).exists() for target in re.findall(r"`((?:docs|configs|results)/[\w./]+)`", text))


def test_the_first_cell_installs_on_colab_alone(monkeypatch: pytest.MonkeyPatch):
    (source,) = {code_cells(read(name))[0].source for name in NAMES}
    commands: list[str] = []
    shell = types.SimpleNamespace(
        system=commands.append, run_line_magic=lambda name, line: commands.append(f"%{name} {line}"), var_expand=lambda text: text
    )
    monkeypatch.setattr("os.chdir", lambda path: commands.append(f"cd {path}"))

    def run(repository: str) -> None:
        code = TransformerManager().transform_cell(source.replace('REPOSITORY = ""', f'REPOSITORY = "{repository}"'))
        exec(compile(code, "cell", "exec"), {"get_ipython": lambda: shell})

    run("")
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    with pytest.raises(ValueError, match="REPOSITORY is empty: set it to the address"):
        run("")
    assert commands == []
    run("https://example.org/pwm_jax")
    assert [command.split()[0:2] for command in commands] == [["git", "clone"], ["%pip", "install"], ["cd", "/content/pwm_jax/notebooks"]]

"""The single-task comparison on hand-made curves: final returns, scores over PPO's, costs, panels, result rows and the page."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pwm_jax.report import single_task
from pwm_jax.report.curves import CurveRow
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import append_results, read_results
from pwm_jax.report.tables import render_study

ORIGIN = {"command": "python -m experiments.compare", "commit": "0123456789ab", "hardware": "a CPU, 2 cores"}


def curve(task, method, seed, *points, compile_s=20.0):
    """Rows of one seed from (env_steps, wall_s, return) triples."""
    return [CurveRow(task, method, seed, steps, wall, compile_s, value, 100.0, 8) for steps, wall, value in points]


ROWS = [
    *(row for seed in range(3) for row in curve("hopper", "ppo", seed, (0, 0.0, 5.0), (1_000, 10.0 + seed, 80.0 + 20 * seed))),
    *(row for seed, end in enumerate([150.0, 150.0, 300.0]) for row in curve("hopper", "pwm", seed, (100, 30.0, 40.0), (200, 60.0, end))),
    *(row for seed in range(3) for row in curve("ant", "ppo", seed, (1_000, 70.0, 2.0 + seed), compile_s=90.0 - seed)),
]  # fmt: skip
ORIGINS = dict.fromkeys({(row.task, row.method) for row in ROWS}, ORIGIN)


def test_final_returns_are_last_rows_by_seed():
    returns = single_task.final_returns(ROWS)
    assert list(returns) == ["hopper", "ant"]
    assert [run.tolist() for run in returns["hopper"]["ppo"]] == [[80.0], [100.0], [120.0]]
    assert [run.tolist() for run in returns["ant"]["ppo"]] == [[2.0], [3.0], [4.0]]


def test_a_score_is_the_return_over_ppo_s_mean():
    scores = single_task.normalised(single_task.final_returns(ROWS))
    assert [run.tolist() for run in scores["hopper"]["pwm"]] == [[1.5], [1.5], [3.0]]
    assert np.mean(scores["ant"]["ppo"]) == pytest.approx(1.0)


def test_a_task_without_ppo_has_no_score_and_no_results():
    rows = [row for row in ROWS if (row.task, row.method) != ("hopper", "ppo")]
    assert list(single_task.normalised(single_task.final_returns(rows))) == ["ant"]
    with pytest.raises(RecordError, match="no ppo on hopper"):
        single_task.result_rows(rows, ORIGINS)


def test_a_ppo_that_earns_nothing_gives_no_scores():
    with pytest.raises(RecordError, match="hopper: ppo's mean final return is -3; scores need a positive one"):
        single_task.normalised(single_task.final_returns(curve("hopper", "ppo", 0, (10, 1.0, -3.0))))


def test_result_rows_hold_score_steps_and_seconds_and_are_a_study(tmp_path):
    results = single_task.result_rows(ROWS, ORIGINS)
    assert len(results) == 9
    last = next(row for row in results if row.key == ("hopper", "pwm", 2))
    assert (last.episode_return, last.score, last.env_steps, last.seconds, last.episodes) == (300.0, 3.0, 200, 60.0, 8)
    assert last.extra == {"score": single_task.SCORE, "compile_s": 20.0, "length": 100.0}
    append_results(tmp_path, results)
    assert read_results(tmp_path / "single_task.jsonl") == results
    text = render_study(results)
    assert "| task | pwm | ppo |" in text
    assert "score: final return / PPO's mean final return on the same task." in text
    assert "dm_control" not in text


def test_the_summary_says_means_iqms_costs_and_scores():
    text = single_task.summary(ROWS)
    # Three seeds: the mean of 150, 150, 300; its IQM cuts none of three, as scipy's trim_mean rounds down.
    assert re.search(r"hopper +200 \[150, 300\] +100 \[80\.0, 120\]", text)
    assert re.search(r"hopper, IQM +200 \[150, 300\] +100 \[80\.0, 120\]", text)
    assert re.search(r"hopper +ppo +3 +1,000 +11 s +20 s", text)
    assert re.search(r"ant +ppo +3 +1,000 +1 min 10 s +1 min 30 s", text)
    assert re.search(r"mean score +— +1\.00 \[0\.\d+, 1\.\d+\]", text)


def test_efficiency_sets_pwm_s_steps_beside_ten_times_as_many_of_ppo():
    rows = [
        *curve("hopper", "pwm", 0, (100, 1.0, 10.0), (400, 2.0, 40.0)),
        *curve("hopper", "pwm", 1, (100, 1.0, 20.0), (400, 2.0, 50.0)),
        *curve("hopper", "ppo", 0, (0, 0.0, 0.0), (3_000, 9.0, 60.0)),
    ]
    # 100, 200 and 400 steps of pwm; PPO has reached 3,000 alone, so 4,000 are not shown.
    assert [[row[1], row[2].split()[0], row[3]] for row in single_task.efficiency_rows(rows)] == [
        ["100", "15.0", "20.0"],
        ["200", "25.0", "40.0"],
    ]
    assert single_task.at_step(rows, "hopper", "pwm", 50) == []
    assert single_task.efficiency_rows([row for row in rows if row.method == "ppo"]) == []
    assert "Return of pwm beside PPO's after 10 times the environment steps" in single_task.summary(rows)


def test_panels_leave_out_what_a_logarithmic_axis_cannot_show():
    hopper, ant = single_task.panels(ROWS, "env_steps")
    assert (hopper.title, ant.title) == ("hopper", "ant")
    assert [(curve.name, curve.steps.tolist(), curve.values.tolist()) for curve in hopper.curves if curve.values[-1] in (80.0, 300.0)] == [
        ("pwm", [100.0, 200.0], [40.0, 300.0]),
        ("ppo", [1_000.0], [80.0]),
    ]
    wall, _ = single_task.panels(ROWS, "wall_s")
    assert [curve.steps.tolist() for curve in wall.curves] == [[30.0, 60.0]] * 3 + [[10.0], [11.0], [12.0]]


def test_figures_are_pictures_and_drawings(tmp_path):
    files = single_task.save_figures(ROWS, tmp_path)
    names = ["learning_curves_env_steps", "learning_curves_wall_s", "final_returns"]
    assert [file.name for file in files] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert all(file.stat().st_size > 1_000 for file in files)


def test_stiffness_has_a_panel_of_its_own(tmp_path):
    name = "brax-hopper-generalized"
    rows = [
        row
        for factor, value in (("-stiffness16", 9.0), ("", 5.0), ("-stiffness0.25", 2.0))
        for row in curve(f"{name}{factor}", "pwm", 1, (10, 1.0, 0.0), (20, 2.0, value))
    ]
    (panel,) = single_task.stiffness_panels([*rows, *ROWS])
    assert panel.title == name
    assert [(c.name, c.steps.tolist(), c.values.tolist()) for c in panel.curves] == [("pwm", [0.25, 1.0, 16.0], [2.0, 5.0, 9.0])]
    assert [file.name for file in single_task.save_figures(rows, tmp_path)][-1] == "final_returns_over_stiffness.svg"
    assert single_task.result_rows(ROWS[:12], ORIGINS, "stiffness")[0].study == "stiffness"


def test_the_page_is_one_file_with_every_part(tmp_path):
    text = single_task.write_comparison(tmp_path / "comparison.html", ROWS, ORIGINS).read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", text.replace("xlink:href", "href"))
    drawings = re.findall(r"<svg role=\"img\".*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 2 + 2 * 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert 'aria-label="hopper, return against environment steps: pwm to 200, ppo to 100"' in text
    assert '<span class="v">200</span> <span class="i">[150, 300]</span>' in text
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "ant ppo 3 1,000 1 min 10 s 1 min 30 s" in words
    assert words.count("python -m experiments.compare") == 1  # three runs of one command
    assert "next to nothing" not in text
    assert "next to nothing" in single_task.write_comparison(tmp_path / "two.html", ROWS[:4], ORIGINS).read_text()

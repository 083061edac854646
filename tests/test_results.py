"""RESULTS.md shows what results/*.jsonl holds, and the check that says so can fail."""

import dataclasses
from pathlib import Path

import pytest

from pwm_jax.report import measured, tables
from pwm_jax.report.measurements import Measurement, write_measurements
from pwm_jax.report.records import RecordError
from pwm_jax.report.results import ResultRow, append_results, read_results

ROOT = Path(__file__).resolve().parents[1]
EMPTY = "# Results\n\n<!-- results:quickstart -->\n<!-- /results -->\n\nbetween\n\n<!-- results:online --><!-- /results -->\nafter\n"


def row(method, seed, value, task="walker-walk"):
    return ResultRow(
        study="quickstart",
        task=task,
        method=method,
        seed=seed,
        episode_return=value,
        score=value / 1000,
        env_steps=0,
        seconds=200.0 if method == "extracted" else 0.0,
        command="python -m experiments.run",
        commit="0123456789ab",
        hardware="a CPU, 2 cores",
        extra={"returns": [value - 10, value + 10]},
    )


@pytest.fixture
def files(tmp_path):
    results, page = tmp_path / "results", tmp_path / "RESULTS.md"
    append_results(
        results,
        [row("extracted", 0, 800.0), row("extracted", 1, 820.0), row("bc", 0, 500.0), row("data", 0, 300.0), row("random", 0, 30.0)],
    )
    page.write_text(EMPTY)
    return results, page


def run(mode, files):
    return tables.main([mode, f"--results={files[0]}", f"--file={files[1]}"])


def test_the_published_tables_equal_the_published_rows():
    page = ROOT / "RESULTS.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    assert tables.render_results(text, ROOT / "results") == text, "run: python -m pwm_jax.report.tables --write"


def test_every_published_row_is_valid():
    assert [path.name for path in sorted((ROOT / "results").glob("*.jsonl")) if not read_results(path)] == []


def test_blocks_are_filled_from_the_rows_and_then_agree(files, capsys):
    assert run("--check", files) == 1
    assert "--write" in capsys.readouterr().err
    assert run("--write", files) == 0
    assert run("--check", files) == 0
    text = files[1].read_text()
    assert "| walker-walk | 810 [795, 825] | 500 [490, 510] | 300 [290, 310] | 30.0 [20.0, 40.0] | better (+510) | better (+310) |" in text
    assert "No results yet: online.jsonl has no rows." in text
    assert "- command: `python -m experiments.run`" in text
    assert "extracted 3 min 20 s" in text
    assert text.startswith("# Results\n\n<!-- results:quickstart -->\n")
    assert "<!-- /results -->\n\nbetween\n\n<!-- results:online -->" in text
    assert text.endswith("<!-- /results -->\nafter\n")


def test_a_study_of_measurements_has_the_table_of_its_kind(files, tmp_path, capsys):
    setting = {"task": "a-task", "action_dim": 3, "through": "simulator", "horizon": 4, "samples": 8, "seed": 0}
    values = {"variance": 1.5, "esnr": 0.25, "norm_median": 2.0, "norm_max": None, "return": 1.0}
    directory = files[0] / "measured"
    write_measurements(directory, [Measurement("contact", setting, values, "python x.py", "abc", "a CPU")])
    files[1].write_text("<!-- results:contact --><!-- /results -->")
    assert run("--write", files) == 0
    text = files[1].read_text()
    assert "| a-task | 3 | simulator | 4 | 1.5 | 0.25 | 2 | not finite |" in text
    assert "- command: `python x.py`\n- commit: abc\n- hardware: a CPU\n" in text
    assert measured.main([f"--results={directory}", f"--figures={tmp_path / 'figures'}"]) == 0
    assert (tmp_path / "figures" / "contact" / "variance_over_horizons.svg").exists()
    (directory / "contact.jsonl").rename(directory / "contac.jsonl")
    assert measured.main([f"--results={directory}", f"--figures={tmp_path / 'figures'}"]) == 1
    assert "no table is known for measured rows of study 'contac'" in capsys.readouterr().err


def with_extra(result, **extra):
    return dataclasses.replace(result, extra={**result.extra, **extra})


def test_a_study_without_times_or_published_scores_shows_neither(files):
    run("--write", files)
    assert "ms per decision" not in files[1].read_text()
    assert "published" not in files[1].read_text()


def test_a_study_whose_rows_carry_times_shows_them(files):
    time = {"seconds_per_call": 0.002, "environments": 10, "device": "cpu"}
    append_results(files[0], [with_extra(row("extracted", seed, 800.0), decision=time) for seed in (0, 1)], replace=True)
    assert run("--write", files) == 0
    text = files[1].read_text()
    assert "| ms per decision | 0.200 | — | — | — |  |  |\n| ms per call | 2.00 for 10 (cpu) | — | — | — |  |  |\n" in text
    assert "One environment alone would wait for a call of its own" in text


def test_a_study_that_asks_for_published_scores_has_them_beside_its_own(files):
    rows = [row("extracted", 0, 800.0), row("bc", 0, 500.0)]
    append_results(files[0], [with_extra(result, published="mt30") for result in rows], replace=True)
    assert run("--write", files) == 0
    text = files[1].read_text()
    assert "| task | extracted | bc | data | random | published PWM, H=16§ | published PWM, H=3§ | published TD-MPC2¶ |" in text
    assert "| 0.50 | 0.30 | 0.03 | 0.99 | 0.99 | 0.98 [0.97, 0.98] |\n" in text
    assert "| P(extracted higher) | — | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] | — | — | — |" in text
    assert "§ one training seed" in text
    assert text.count("| mean score |") == 1
    assert "| walker-walk | 810 [795, 825] | 500 [490, 510] |" in text
    assert run("--check", files) == 0


def test_a_study_cannot_ask_for_two_sets_or_for_one_without_its_tasks(files, capsys):
    both = [with_extra(row("extracted", 0, 800.0), published="mt30"), with_extra(row("bc", 0, 500.0), published="mt80")]
    append_results(files[0], both, replace=True)
    assert run("--check", files) == 1
    assert "study quickstart: its rows ask for the published scores of mt30 and mt80" in capsys.readouterr().err
    foreign = [with_extra(row("extracted", 0, 800.0, task="my-own"), published="mt30")]
    (files[0] / "quickstart.jsonl").unlink()
    append_results(files[0], foreign)
    assert run("--check", files) == 1
    assert "mt30 has no published score of my-own" in capsys.readouterr().err


def test_a_changed_number_is_found_on_either_side(files):
    run("--write", files)
    good = files[1].read_text()
    files[1].write_text(good.replace("810 [", "811 ["))
    assert run("--check", files) == 1
    files[1].write_text(good)
    append_results(files[0], [row("extracted", 1, 850.0)], replace=True)
    assert run("--check", files) == 1


def test_a_new_row_is_found(files):
    run("--write", files)
    append_results(files[0], [row("extracted", 0, 100.0, task="reacher-easy")])
    assert run("--check", files) == 1


def test_text_without_blocks_and_an_empty_directory_agree(tmp_path):
    assert tables.render_results("# Results\n", tmp_path) == "# Results\n"
    assert tables.render_results("", tmp_path / "absent") == ""


@pytest.mark.parametrize("text", ["<!-- results:a -->", "<!-- /results -->", "<!-- results:a --> <!-- results:b --> <!-- /results -->"])
def test_a_marker_without_its_partner_is_refused(tmp_path, text):
    with pytest.raises(RecordError, match="needs one <!-- /results -->"):
        tables.render_results(text, tmp_path)


def test_damaged_rows_fail_the_check_with_their_line(files, capsys):
    with (files[0] / "quickstart.jsonl").open("a") as file:
        file.write("{}\n")
    assert run("--check", files) == 1
    assert "quickstart.jsonl, line 6: missing keys" in capsys.readouterr().err

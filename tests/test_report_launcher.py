"""The report's launcher on a working directory that an evaluation left: what it shows, saves and publishes."""

import pytest

from configs import quickstart
from experiments import report, run
from experiments.settings import ConfigError
from pwm_jax.report.decisions import DecisionTime, write_decision_time
from pwm_jax.report.episodes import Episode, write_episodes
from pwm_jax.report.published import PublishedError
from pwm_jax.report.results import read_results
from pwm_jax.report.workdir import record_stage

PLACE = ("report.html", "figures/performance_profile.png", "figures/performance_profile.svg")


@pytest.fixture
def evaluated(tmp_path):
    for method, value in {"extracted": 800.0, "mppi": 700.0, "bc": 500.0}.items():
        episodes = [Episode("walker-walk", method, seed, n, value + n, None, (value + n) / 1000, 500) for seed in (0, 1) for n in range(10)]
        write_episodes(tmp_path, method, episodes)
    write_decision_time(tmp_path, "mppi", DecisionTime(0.5, 20, "cpu"))
    record_stage(tmp_path, "evaluate", seconds=1.0, config={})
    return tmp_path


def config(**fields):
    result = quickstart.get_config()
    result.report.update(fields)
    return result


def test_one_command_from_a_workdir_to_the_table_beside_the_published_scores(evaluated, capsys):
    report.main(config(published="mt30"), evaluated)
    out = capsys.readouterr().out
    walker = next(line.split() for line in out.partition("\nScore\n")[2].splitlines() if line.startswith("walker-walk"))
    assert [cell for cell in walker if not cell.startswith("[") and not cell.endswith("]")] == [
        "walker-walk", "0.80", "0.70", "0.50", "0.99", "0.99", "0.98",
    ]  # fmt: skip
    assert all((evaluated / name).stat().st_size > 1000 for name in PLACE)
    assert "Beside the published scores" in (evaluated / "report.html").read_text()


def test_published_scores_appear_only_where_they_are_asked_for(evaluated, capsys):
    report.main(config(), evaluated)
    assert "published PWM" not in capsys.readouterr().out
    assert "Beside the published scores" not in (evaluated / "report.html").read_text()


def test_rows_keep_the_time_per_decision_and_what_they_stand_beside(evaluated, tmp_path):
    report.main(config(publish=str(tmp_path / "results"), published="mt80"), evaluated)
    rows = read_results(tmp_path / "results" / "quickstart.jsonl")
    assert len(rows) == 6
    assert {row.extra["published"] for row in rows} == {"mt80"}
    times = {row.method: row.extra.get("decision") for row in rows}
    assert times == {"extracted": None, "bc": None, "mppi": {"seconds_per_call": 0.5, "environments": 20, "device": "cpu"}}


def test_an_unknown_set_is_named(evaluated):
    with pytest.raises(ConfigError, match=r"config\.report\.published must be one of '', 'mt30', 'mt80', not 'mt50'"):
        report.main(config(published="mt50"), evaluated)


def test_a_run_of_tasks_without_published_scores_is_refused_before_it_starts():
    asked = config(published="mt30")
    run.check(asked)
    asked.extract.tasks = ("mw-door-close",)
    with pytest.raises(PublishedError, match="mt30 has no published score of mw-door-close"):
        run.check(asked)


def test_an_unfinished_run_has_a_page(tmp_path, capsys):
    with pytest.raises(ConfigError, match="holds no run: give the --workdir of one"):
        report.main(config(published="mt30"), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    report.main(config(published="mt30"), tmp_path)
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "figures").exists()

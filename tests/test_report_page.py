import re
from html.parser import HTMLParser

import numpy as np
import pytest
from finished_workdir import episodes, write_workdir

from pwm_jax.report import workdir
from pwm_jax.report.decisions import DecisionTime, write_decision_time
from pwm_jax.report.episodes import Episode, group, write_episodes
from pwm_jax.report.metrics import MetricsWriter
from pwm_jax.report.page import grouped_origins, page_view, write_page
from pwm_jax.report.page_scores import profiles

VOID = {"meta", "img", "line", "use", "path", "stop"}


class Outline(HTMLParser):
    """Collects text, tags and attributes, and checks that tags nest."""

    def __init__(self, source):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def page(finished):
    return write_page(finished / "report.html", workdir.load_workdir(finished)).read_text(encoding="utf-8")


def test_the_page_is_one_well_formed_file_that_fetches_nothing(page):
    outline = Outline(page)
    tags = [tag for tag, _ in outline.elements]
    assert "link" not in tags
    assert tags.count("script") == 1
    for tag, attributes in outline.elements:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:")), f"{tag} {name}={target[:60]}"
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_are_unique_and_links_lead_somewhere(page):
    elements = Outline(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {
        attributes[name][1:] for _, attributes in elements for name in ("href", "xlink:href") if attributes.get(name, "").startswith("#")
    }
    assert targets <= set(ids)


def test_what_a_run_wrote_is_shown_as_text(page):
    assert "<b>mixed" not in page
    assert "alert(1)" in Outline(page).text
    assert [tag for tag, _ in Outline(page).elements].count("script") == 1


def test_every_picture_says_what_it_shows(page):
    elements = Outline(page).elements
    assert [attributes["alt"] for tag, attributes in elements if tag == "img"][2].startswith("Episode of mw-reach by extracted, seed 0")
    pictures = [attributes for tag, attributes in elements if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) == 3 + 3 + 1 + 1 + 1 + 1 + 1
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def test_the_verdict_and_the_scores_are_those_of_the_episodes(finished, page):
    view = page_view(workdir.load_workdir(finished))
    assert view["judgement"].outcome == "met"
    text = " ".join(Outline(page).text.split())
    assert "The policies meet every criterion" in text
    rows = {row["task"]: row for row in view["score_rows"]}
    expected = np.mean([e.episode_return for e in episodes("extracted", 0, 2) if e.task == "walker-walk"])
    assert rows["walker-walk"]["cells"][0].text == f"{expected:.0f}"
    assert rows["walker-walk"]["cells"][-1].verdict == "better"
    assert rows["reacher-easy"]["cells"][-2].verdict == "better"
    assert [row["time"] for row in view["timing"]] == ["30 s", "1 min 30 s", "2 min 0 s"]
    assert view["missing"] == {}
    assert "do not say what other training seeds would give" in text


def test_profiles_are_of_methods_with_every_task_and_say_their_shares(finished, tmp_path):
    (chart,) = page_view(workdir.load_workdir(finished))["profile"]
    # Mean scores of the seeds: about 0.85, 0.9 and 1 for extracted; 0.4, 0.89 and 1 for bc; 0.3, 0.5 and 0 for data.
    assert "extracted 100 % above 0.25, 100 % above 0.5, 100 % above 0.75" in chart.svg
    assert "bc 100 % above 0.25, 67 % above 0.5, 67 % above 0.75" in chart.svg
    write_episodes(tmp_path, "data", episodes("data", 2, 1))
    write_episodes(tmp_path, "expert", [e for e in episodes("expert", 0, 1) if e.task == "mw-reach"])
    assert list(profiles(group(workdir.load_workdir(tmp_path).episodes, "score"))) == ["data"]
    (tmp_path / "empty").mkdir()
    assert page_view(workdir.load_workdir(tmp_path / "empty"))["profile"] == []


def test_times_per_decision_are_shown_where_they_are_known(finished, page, tmp_path):
    assert "One environment alone would wait" not in page
    write_episodes(tmp_path, "extracted", episodes("extracted", 0, 2))
    write_episodes(tmp_path, "data", episodes("data", 2, 1))
    write_decision_time(tmp_path, "extracted", DecisionTime(0.003, 48, "cpu"))
    view = page_view(workdir.load_workdir(tmp_path))
    assert [(row["decision"].text, row["decision"].interval) for row in view["summary"]] == [("0.0625 ms", "3.00 for 48 (cpu)"), ("—", "")]
    text = " ".join(Outline(write_page(tmp_path / "r.html", workdir.load_workdir(tmp_path)).read_text()).text.split())
    assert "One environment alone would wait" in text
    assert "0.0625 ms" in text


def test_published_scores_are_shown_where_they_are_asked_for(finished, page, tmp_path):
    data = workdir.load_workdir(finished)
    assert "Beside the published scores" not in page
    source = write_page(tmp_path / "report.html", data, published="mt80").read_text()
    text = " ".join(Outline(source).text.split())
    assert "Beside the published scores" in text
    assert "models of all 80 tasks of MT80" in text
    assert "‡ suspect" in text
    cells = {row[0].text: row for row in page_view(data, published="mt80")["published"]}
    assert [cell.text for cell in cells["mw-reach"][4:]] == ["0.80‡", "0.80‡", "0.80"]
    assert cells["mw-reach"][6].interval.startswith("[0.5")
    (tmp_path / "empty").mkdir()
    assert page_view(workdir.load_workdir(tmp_path / "empty"), published="mt30")["published"] == []


def test_learning_curves_carry_the_levels_of_the_other_methods(finished):
    (chart, *_) = page_view(workdir.load_workdir(finished))["learning"]
    assert chart.title == "walker-walk"
    assert re.search(r"walker-walk: extracted from 0\.50 to 200", chart.svg)
    assert "bc at 39" in chart.svg or "bc at 40" in chart.svg or "bc at 41" in chart.svg


def test_a_failed_verdict_is_told_plainly(finished, tmp_path):
    write_episodes(tmp_path, "extracted", episodes("extracted", 2, 2))
    write_episodes(tmp_path, "bc", episodes("bc", 1, 2))
    write_episodes(tmp_path, "data", episodes("data", 1, 1))
    text = " ".join(Outline(write_page(tmp_path / "r.html", workdir.load_workdir(tmp_path)).read_text()).text.split())
    assert "The policies do not meet every criterion" in text
    assert "worse on walker-walk, reacher-easy, mw-reach" in text
    assert "not shown on walker-walk, reacher-easy, mw-reach" in text


def test_an_empty_workdir_gives_a_page_of_commands(tmp_path):
    text = Outline(write_page(tmp_path / "report.html", workdir.load_workdir(tmp_path)).read_text()).text
    assert "No evaluation yet" in text
    for stage in ("collect", "pretrain", "extract", "evaluate"):
        assert f"python -m experiments.{stage} " in text


def test_each_part_alone_makes_a_page(finished, tmp_path):
    for part in (
        "config.json",
        "dataset/data.json",
        "metrics/extract.jsonl",
        "metrics/pretrain.jsonl",
        "evaluation/bc.jsonl",
        "evaluation/extracted.jsonl",
    ):
        root = tmp_path / part.replace("/", "_")
        (root / part).parent.mkdir(parents=True)
        (root / part).write_bytes((finished / part).read_bytes())
        outline = Outline(write_page(root / "report.html", workdir.load_workdir(root)).read_text())
        assert "Make it with" in outline.text


def test_problems_are_on_the_page(tmp_path):
    (tmp_path / "timing.json").write_text("{")
    text = Outline(write_page(tmp_path / "report.html", workdir.load_workdir(tmp_path)).read_text()).text
    assert "Left out, could not be read: timing.json: not a JSON object" in text


def test_an_online_run_needs_no_extraction(tmp_path):
    write_episodes(
        tmp_path, "pwm", [Episode("cartpole-swingup", "pwm", seed, n, 800.0 + n, None, 0.8, 500) for seed in range(3) for n in range(4)]
    )
    with MetricsWriter(tmp_path, "online", tensorboard=False) as writer:
        for step in (0, 5000):
            writer.write(step, {"eval/return/cartpole-swingup/seed0": step / 10})
    view = page_view(workdir.load_workdir(tmp_path))
    assert (view["headline"], view["judgement"], len(view["online"])) == ("Evaluation", None, 1)
    assert "extract" not in view["missing"]
    text = Outline(write_page(tmp_path / "report.html", workdir.load_workdir(tmp_path)).read_text()).text
    assert "Online loop" in text
    assert "chance that" not in text


def test_what_one_command_made_is_one_entry():
    origin = {"command": "run", "commit": "a", "hardware": "cpu"}
    later = origin | {"commit": "b"}
    assert grouped_origins({"collect": origin, "pretrain": later, "extract": origin}) == [
        {"made": "collect; extract", **origin},
        {"made": "pretrain", **later},
    ]

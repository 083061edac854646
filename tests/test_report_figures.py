import xml.etree.ElementTree as ElementTree

import numpy as np

from pwm_jax.report import figures
from pwm_jax.report.stats import Estimate, performance_profile
from pwm_jax.report.styles import styles


def curves(name="extracted"):
    return [figures.Curve(name, np.array([0.0, 100.0, 200.0]), np.array([0.0, 2.0 + seed, 4.0])) for seed in (0, 1)]


def test_mean_of_curves_on_different_steps():
    first = figures.Curve("a", np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0]))
    second = figures.Curve("a", np.array([5.0, 15.0]), np.array([1.0, 1.0]))
    steps, values = figures.mean_curve([first, second])
    assert steps.tolist() == [5.0, 10.0, 15.0]
    assert values.tolist() == [3.0, 5.5, 8.0]


def test_seeds_are_thin_the_mean_is_bold_and_levels_are_level():
    figure = figures.curve_figure([figures.Panel("walker-walk", curves(), {"bc": 3.0})], "updates", "return")
    (axes,) = figure.axes
    thin_a, thin_b, mean, level = axes.get_lines()
    assert [line.get_label() for line in (mean, level)] == ["extracted", "bc"]
    assert thin_a.get_linewidth() == thin_b.get_linewidth() < mean.get_linewidth()
    assert np.asarray(mean.get_ydata()).tolist() == [0.0, 2.5, 4.0]
    assert list(level.get_ydata()) == [3.0, 3.0]
    assert axes.get_title(loc="left") == "walker-walk"


def test_logarithmic_only_where_values_are_positive():
    positive = figures.Panel("a", [figures.Curve("training", np.arange(3.0), np.array([3.0, 2.0, 1.0]))])
    figure = figures.curve_figure([positive, figures.Panel("b", curves())], "x", "y", log=True)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]


def test_the_horizontal_axis_is_logarithmic_on_request():
    panel = figures.Panel("a", [figures.Curve("ppo", np.array([1e3, 1e6]), np.array([-1.0, 2.0]))])
    (axes,) = figures.curve_figure([panel], "x", "y", log_x=True).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    axes.figure.draw_without_rendering()
    assert {"1k", "10k", "100k", "1M"} <= {label.get_text() for label in axes.get_xticklabels()}


def test_whole_steps_have_whole_ticks():
    ticks = []
    for end in (4.0, 3.5):
        (axes,) = figures.curve_figure([figures.Panel("a", [figures.Curve("held out", np.array([1.0, end]), np.ones(2))])], "x", "y").axes
        axes.figure.draw_without_rendering()
        ticks.append(axes.get_xticks())
    assert all(tick == round(tick) for tick in ticks[0])
    assert any(tick != round(tick) for tick in ticks[1])


def test_interval_chart_draws_the_interval_and_says_the_number():
    panels = {
        "walker-walk": {"extracted": Estimate(800.0, 700.0, 850.0, 20, "episodes"), "bc": Estimate(5.0, np.nan, np.nan, 1, "episodes")}
    }
    (axes,) = figures.interval_figure(panels, "return").axes
    bar, marker, lone = axes.get_lines()
    assert list(bar.get_xdata()) == [700.0, 850.0]
    assert (list(marker.get_xdata()), list(lone.get_xdata())) == ([800.0], [5.0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["extracted 800", "bc 5.00"]


def test_profile_chart_draws_a_stepped_line_and_a_band_for_each_method():
    with_band, without = performance_profile({"a": [[0.2, 0.6]]}), performance_profile({"a": [[0.5]]})
    (axes,) = figures.profile_figure({"extracted": with_band, "data": without}).axes
    first, second = axes.get_lines()
    assert [line.get_drawstyle() for line in (first, second)] == ["steps-post"] * 2
    assert np.asarray(second.get_ydata()).tolist() == without.value.tolist()
    assert len(axes.collections) == 1
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["extracted", "data"]


def test_figures_are_saved_as_picture_and_drawing(tmp_path):
    figure = figures.profile_figure({"extracted": performance_profile({"a": [[0.2, 0.6]]})})
    picture, drawing = figures.save(figure, tmp_path / "figures" / "profile")
    assert (picture.name, drawing.name) == ("profile.png", "profile.svg")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "fraction of runs with score" in drawing.read_text()


def test_inline_svg_is_xml_with_its_own_ids_the_pages_colour_and_a_description():
    panel = figures.Panel("a<b", curves())
    texts = [figures.inline_svg(figures.curve_figure([panel], "x", "y"), 'says "a<b"', prefix) for prefix in ("p0", "p1")]
    trees = [ElementTree.fromstring(text.replace("xlink:href", "href")) for text in texts]
    assert trees[0].get("aria-label") == 'says "a<b"'
    assert trees[0].get("role") == "img"
    assert trees[0].get("width") is None
    ids = [{element.get("id") for element in tree.iter() if element.get("id")} for tree in trees]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert "currentColor" in texts[0]
    assert figures.FOREGROUND not in texts[0]
    references = {element.get("href", "#").removeprefix("#") for element in trees[0].iter()} - {""}
    assert references <= ids[0]


def test_methods_differ_in_colour_and_in_line_or_marker():
    methods = ["extracted", "generalist", "mppi", "bc", "data", "random", "expert"]
    for attribute in ("colour", "dashes", "marker"):
        assert len({getattr(style, attribute) for style in styles(methods).values()}) == len(methods)
        single_task = styles(["pwm", "shac", "decoupled", "ppo", "sac"])
        assert len({getattr(style, attribute) for style in single_task.values()}) == 5


def test_names_without_a_style_of_their_own_get_different_ones():
    found = styles(["few", "pwm", "tenth", "all", "unseen", "none", "few"])
    assert list(found) == ["few", "pwm", "tenth", "all", "unseen", "none"]
    assert len(set(found.values())) == 6
    assert found["pwm"] == styles(["pwm"])["pwm"]
    assert styles(map(str, range(100))).keys() == {str(i) for i in range(100)}

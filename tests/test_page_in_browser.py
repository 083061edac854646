"""The report pages in headless Chromium: nothing is fetched, pictures are drawn, tables sort, videos play, phones and the dark are fine."""

import shutil
from pathlib import Path

import pytest
from finished_workdir import TASKS, episodes, write_workdir
from test_report_single_task import ORIGINS, ROWS

from pwm_jax.report.episodes import write_episodes
from pwm_jax.report.page import write_page
from pwm_jax.report.single_task import write_comparison
from pwm_jax.report.workdir import load_workdir

playwright = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESKTOP = 390, 1280

# Every piece of text that is shown, whose contrast with what lies behind it is below 4.5, WCAG's bound for text of this size.
FAINT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
    seen += 1;
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(text);
  }
  return [seen, faint];
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        program = next(filter(None, map(shutil.which, NAMES)), None) or driver.chromium.executable_path
        if not Path(program).exists():
            pytest.skip("no Chromium on this machine; get one with: python -m playwright install chromium")
        browser = driver.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The page of a run, in which one method has no score on two of the tasks, and the page of a comparison."""
    root = write_workdir(tmp_path_factory.mktemp("finished"))
    write_episodes(root, "expert", (episode for episode in episodes("expert", 0, 1) if episode.task == "reacher-easy"))
    return {
        "run": write_page(root / "report.html", load_workdir(root)),
        "comparison": write_comparison(root / "comparison.html", ROWS, ORIGINS),
    }


@pytest.fixture
def visit(browser):
    """Opens a file without a network; returns the page and what went wrong while it was open: requests, errors and warnings."""
    contexts = []

    def open_file(file, width=DESKTOP, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(("data:", file.as_uri())) else None)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(file.as_uri())
        return page, wrong

    yield open_file
    for context in contexts:
        context.close()


def column(page, table, number):
    """The first words of a column's cells, in the order shown."""
    rows = page.get_by_role("region", name=table, exact=True).locator("tbody tr")
    return [row.locator("th, td").nth(number).inner_text().split()[0] for row in rows.all()]


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_page_fetches_nothing_and_draws_every_figure(files, visit, name):
    page, wrong = visit(files[name])
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    sizes = page.locator("svg[role=img]").evaluate_all("(all) => all.map((svg) => [svg.getBBox().width, svg.getBBox().height])")
    assert len(sizes) == {"run": 11, "comparison": 6}[name]
    assert all(min(size) > 50 for size in sizes)
    clicked = page.locator("thead button")
    for number in range(clicked.count()):
        clicked.nth(number).click()
    assert wrong == []


def test_what_goes_wrong_on_a_page_is_seen(visit, tmp_path):
    file = tmp_path / "bad.html"
    style = "background:#fff; color:#ccc; width:500px"
    file.write_text(f'<body style="{style}">text<img src="https://example.org/a.png"><script>console.error("loud"); missing()</script>')
    page, wrong = visit(file, PHONE)
    assert "https://example.org/a.png" in wrong
    assert "loud" in wrong
    assert any("missing is not defined" in line for line in wrong)
    assert page.evaluate(FAINT) == [1, ["text"]]
    assert page.evaluate("document.documentElement.scrollWidth") > PHONE


def test_tables_sort_by_mouse_and_keyboard(files, visit):
    page, _ = visit(files["run"])
    table, head = "Return of each task", page.get_by_role("region", name="Return of each task").locator("thead th")
    assert column(page, table, 0) == list(TASKS)
    rising = sorted(TASKS, key=lambda task: TASKS[task][0])
    assert sorted(TASKS, key=lambda task: str(TASKS[task][0])) != rising  # as text the order is another
    head.nth(1).get_by_role("button", name="extracted").click()
    assert column(page, table, 0) == rising[::-1]
    assert head.nth(1).get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert column(page, table, 0) == rising
    assert head.nth(1).get_attribute("aria-sort") == "ascending"
    head.nth(0).locator("button").focus()
    page.keyboard.press("Space")
    assert column(page, table, 0) == sorted(TASKS)
    assert page.locator("th[aria-sort]").count() == 1
    expert = [text.strip() for text in head.all_inner_texts()].index("expert")
    for way in ("descending", "ascending"):
        head.nth(expert).locator("button").click()
        assert head.nth(expert).get_attribute("aria-sort") == way
        assert column(page, table, 0)[0] == "reacher-easy"  # what is not measured comes last, either way


def test_times_sort_by_their_length(files, visit):
    page, _ = visit(files["comparison"])
    head, table = page.get_by_role("region", name="Cost of each run").locator("thead th"), "Cost of each run"
    head.nth(4).locator("button").click()
    assert [column(page, table, n) for n in (0, 1)] == [["ant", "hopper", "hopper"], ["ppo", "pwm", "ppo"]]  # 70 s, 60 s, 11 s
    head.nth(3).locator("button").click()
    assert column(page, table, 3) == ["1,000", "1,000", "200"]


def test_videos_play_and_stop(files, visit):
    page, wrong = visit(files["run"])

    def frames():
        """How many different pictures the first video shows in several looks."""
        return len({first.screenshot() for _ in range(8)})

    videos = page.locator(".videos img")
    first = videos.first
    for video in videos.all():
        video.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('.videos img')].every((image) => image.complete)")
    assert videos.evaluate_all("(all) => all.map((image) => image.naturalWidth)") == [64] * len(TASKS)
    assert frames() > 1
    button = page.locator("#pause")
    button.click()
    page.wait_for_function("[...document.querySelectorAll('.videos img')].every((image) => image.dataset.moving && image.complete)")
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Play videos", "true")
    assert frames() == 1
    button.click()
    assert frames() > 1
    assert wrong == []


def test_videos_stand_still_where_less_motion_is_asked_for(files, visit):
    page, _ = visit(files["run"], reduced_motion="reduce")
    assert page.locator("#pause").inner_text() == "Play videos"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_phone_shows_all_of_a_page_and_its_text_stands_out(files, visit, name, scheme):
    page, _ = visit(files[name], PHONE, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    seen, faint = page.evaluate(FAINT)
    assert seen > 100
    assert faint == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]

"""The page in a real browser: it draws, sorts, answers mouse and keyboard, and logs nothing."""

import pytest
from bench_results import CASE, make_results
from browser import open_browser

from kdas_edge.report import write_page

pytestmark = pytest.mark.slow
_TABULATOR, _ENTER = "\ue004", "\ue007"
_DRAWN = """
return [...document.querySelectorAll('[id^="plot-"]')].every((plot) => plot.querySelector("svg"))
"""
_COLUMN = """
const rows = [...document.querySelectorAll("#results tbody tr")];
return rows.map((row) => row.cells[arguments[0]].textContent);
"""
_PLOTS = "return [...document.querySelectorAll('[id^=plot-]')].map((plot) => plot.id)"
# Vega describes every mark to screen readers
_POINT = "#plot-pareto [aria-roledescription=point]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with open_browser(folder) as opened:
        write_page(folder / "report.html", make_results(), [CASE])
        opened.open(folder / "report.html")
        opened.wait(_DRAWN)
        yield opened


@pytest.fixture(autouse=True)
def _silent(browser):
    """Nothing that the page does may be worth a line in the console."""
    yield
    # the gallery of the test shows two bytes that are no picture; browsers do not log that
    assert browser.console() == []


def test_an_error_of_the_page_would_be_noticed(browser):
    browser.run("setTimeout(() => { throw new Error('on purpose') })")
    assert any("on purpose" in line for line in browser.console())


def test_every_plot_is_drawn(browser):
    names = browser.run(_PLOTS)
    assert names == ["plot-pareto", "plot-size", "plot-latency"]
    assert browser.run("return document.querySelectorAll(arguments[0]).length", _POINT) == 4


def test_hovering_a_point_shows_its_row(browser):
    browser.hover(_POINT)
    shown = "return document.querySelector('#vg-tooltip-element.visible')?.innerText"
    text = browser.wait(shown)
    assert "teacher fp32" in text and "openvino:CPU:threads=1" in text and "0.900" in text


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(browser):
    click = "document.querySelectorAll('#results thead button')[arguments[0]].click()"
    order = "return document.querySelectorAll('#results thead th')[3].getAttribute('aria-sort')"

    def times():
        return [text for text in browser.run(_COLUMN, 3) if text != "–"]

    browser.run(click, 3)
    assert browser.run(order) == "ascending"
    assert times() == sorted(times(), key=float) and len(times()) == 4
    browser.run(click, 3)
    assert browser.run(order) == "descending"
    assert times() == sorted(times(), key=float, reverse=True)
    # a row without a number stays at the end
    assert browser.run(_COLUMN, 3)[-1] == "–"
    status = "return [...document.querySelectorAll('#results tbody tr')].pop().innerText"
    assert "FAILED" in browser.run(status)


def test_a_heading_is_reached_and_sorted_with_the_keyboard(browser):
    browser.run("document.querySelector('#results').closest('.scroll').focus()")
    browser.press(_TABULATOR)
    focused = "return document.activeElement.textContent"
    assert browser.run(focused) == "model"
    browser.press(_ENTER)
    names = browser.run(_COLUMN, 0)
    assert names == sorted(names)
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_background(browser, scheme):
    browser.prefer(scheme)
    contrast = """
    const luminance = (text) => {
      const channels = text.match(/[\\d.]+/g).slice(0, 3).map((value) => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2];
    };
    const page = luminance(getComputedStyle(document.body).backgroundColor);
    const label = document.querySelector("#plot-pareto .role-axis-label text");
    return [
      getComputedStyle(document.body).color,
      getComputedStyle(document.querySelector(".soft")).color,
      getComputedStyle(document.querySelector("tr.failed td")).color,
      getComputedStyle(label).fill,
    ].map((color) => {
      const [low, high] = [page, luminance(color)].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05);
    });
    """
    # WCAG 2 level AA asks for 4.5
    assert all(ratio >= 4.5 for ratio in browser.run(contrast))


@pytest.mark.parametrize("width", [1280, 820])
def test_only_plots_and_tables_scroll_sideways(browser, width):
    browser.resize(width, 900)
    over = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(over) <= 0

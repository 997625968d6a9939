"""The main job in a real browser: see the finding, start a run, watch it, find it on Compare."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.report import write_report
from lsviz.runs.store import RunStore
from lsviz.ui.frame.main import PAGES, SECTIONS, TITLES
from tests.browser.conftest import Server, watch_page
from tests.conftest import REPOSITORY, SAMPLES

pytestmark = pytest.mark.browser

PICTURES = REPOSITORY / ".artefacts"
BARS = ".js-plotly-plot .bars path"


def keep_picture(page: Page, name: str) -> None:
    """Keep a screenshot for a person to look at."""
    PICTURES.mkdir(exist_ok=True)
    page.wait_for_timeout(700)  # fonts and Plotly's own transitions
    page.screenshot(path=PICTURES / f"{name}.png", full_page=False)


def without_probing(errors: list[str]) -> list[str]:
    """Leave out what Streamlit 1.67's browser side logs of itself on a link into a page.

    It asks for its health under the page's own path first, gets a 404, and goes on to the right place.
    """
    return [error for error in errors if "404 (Not Found)" not in error]


def test_a_run_is_started_watched_and_found_on_compare(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    complaints = watch_page(page, server.url)
    page.goto(server.url)
    expect(page.get_by_role("heading", name="Without loss scaling, the lowest")).to_be_visible(timeout=30_000)
    page.wait_for_selector(BARS, state="attached")

    go_to(page, "Launch")
    expect(page.get_by_role("heading", name="Launch a run")).to_be_visible()
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("1500")
    steps.press("Enter")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("of 1,500").first).to_be_visible(timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .scatterlayer path.js-line", state="attached", timeout=60_000)
    assert "run=" in page.url

    page.reload()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=30_000)
    (run,) = RunStore.at(server.runs).list_runs()
    assert run.status.live, "it goes on while the browser reloads"

    expect(page.get_by_text("Finished with accuracy")).to_be_visible(timeout=90_000)
    keep_picture(page, "launch-finished")
    assert run.status.state == "finished"
    assert run.status.step == 1500
    page.get_by_role("link", name="See it on Compare").click()
    expect(page.get_by_role("heading", name="What differs")).to_be_visible(timeout=30_000)
    page.wait_for_selector(BARS, state="attached")
    assert run.run_id in page.url
    expect(page.locator(".js-plotly-plot").first.get_by_text("constant:1024").first).to_be_visible()
    keep_picture(page, "compare-after-launch")
    assert not complaints.strangers
    assert without_probing(complaints.errors) == []


def test_cancel_stops_a_run(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{server.url}/launch?steps=100000&policy=none&precision=bf16")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("of 100,000").first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled. What was recorded so far is kept.")).to_be_visible(timeout=30_000)
    (run,) = RunStore.at(server.runs).list_runs()
    assert run.status.state == "cancelled"
    assert run.config.steps == 100_000
    assert run.config.policy == "none"
    assert run.config.precision == "bf16", "the address holds the words of the command line"


def go_to(page: Page, title: str) -> None:
    """Click a page's name, which stands in the menu of its section."""
    name = next(name for name, words in TITLES.items() if words == title)
    section = next(section for section, names in SECTIONS.items() if name in names)
    if section:
        page.get_by_test_id("stTopNavSection").get_by_text(section, exact=True).click()
        page.get_by_test_id("stTopNavDropdownLink").get_by_text(title, exact=True).click()
    else:
        page.get_by_test_id("stTopNavLink").get_by_text(title, exact=True).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 800])
def test_the_first_page_stands_in_both_themes_and_widths(
    scheme: str, width: int, browser: Browser, server: Server
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    complaints = watch_page(page, server.url)
    page.goto(server.url)
    page.wait_for_selector(BARS, state="attached", timeout=30_000)
    figure = page.locator(".js-plotly-plot").first
    for word in (
        "no scaling",
        "constant:1024",
        "flushed to 0",
        "subnormal",
        "normal",
        "Inf",
        "layer1",
        "output",
    ):
        expect(figure.get_by_text(word, exact=True).first).to_be_visible()
    box = figure.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width, "the figure fits the window"
    for title in [TITLES[name] for name in PAGES if name != "explore"]:
        go_to(page, title)
        page.wait_for_timeout(800)
        keep_picture(page, f"{title.lower()}-{scheme}-{width}")
    go_to(page, "Explore")
    page.wait_for_selector(BARS, state="attached")
    keep_picture(page, f"explore-{scheme}-{width}")
    assert complaints.strangers == []
    assert complaints.errors == []


def test_the_address_bar_holds_the_view(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{server.url}/?step=400&beside=gradscaler")
    page.wait_for_selector(BARS, state="attached", timeout=30_000)
    expect(page.get_by_text("step 400 of 1,000")).to_be_visible()
    expect(page.locator(".js-plotly-plot").first.get_by_text("gradscaler", exact=True)).to_be_visible()
    page.get_by_role("slider").press("ArrowRight")
    expect(page.get_by_text("step 440 of 1,000")).to_be_visible()
    page.wait_for_url("**step=440**")


def test_policies_follows_what_is_clicked(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/policies?policies=gradscaler&pattern=........")
    figure = page.locator(".js-plotly-plot").first
    expect(page.get_by_role("heading", name="After 8 steps gradscaler has S = 1,024.")).to_be_visible(
        timeout=30_000
    )
    expect(figure.get_by_text("gradscaler", exact=True)).to_be_visible(timeout=30_000)
    for step in ("0", "1", "2"):
        page.get_by_role("button", name=step, exact=True).click()
        page.wait_for_url(f"**pattern={'O' * (int(step) + 1)}.**")
    expect(page.get_by_role("heading", name="After 8 steps gradscaler has S = 64.")).to_be_visible()
    page.get_by_role("textbox", name="Steps: O overflows, . is clean").fill("OO")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="After 2 steps gradscaler has S = 64.")).to_be_visible()
    keep_picture(page, "policies-clicked")
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


def test_reproduce_shows_table_curves_and_pictures(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 3400})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/reproduce?experiment=sigmoid-mlp")
    expect(page.get_by_role("heading", name="experiments need no loss scaling")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("cell", name="Multibox SSD").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(
        page.get_by_role("heading", name="Without loss scaling FP16 is behind from the start")
    ).to_be_visible()
    page.get_by_role("radio", name="gradients over a training").click()
    page.wait_for_url("**picture=gradients**")
    expect(page.locator(".js-plotly-plot").nth(1).get_by_text("S = 8")).to_be_visible()
    page.get_by_role("radio", name="1024").click()
    page.wait_for_url("**rescue=1024**")
    expect(page.locator(".js-plotly-plot").nth(1).get_by_text("S = 1,024")).to_be_visible()
    expect(page.get_by_text("original", exact=True)).to_be_visible()
    expect(page.locator("[data-testid=stImage] img")).to_have_count(5)
    keep_picture(page, "reproduce")
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


def slide_to_the_left(page: Page) -> None:
    """Drag the what-if slider to its smallest S and see the figure follow."""
    plot = page.locator(".js-plotly-plot", has=page.locator(".slider-container"))
    plot.scroll_into_view_if_needed()
    before = plot.locator(".annotation-text").first.text_content()
    rail = plot.locator(".slider-rail-touch-rect").bounding_box()
    assert rail is not None
    middle = rail["y"] + rail["height"] / 2
    page.mouse.move(rail["x"] + rail["width"] * 0.8, middle)
    page.mouse.down()
    page.mouse.move(rail["x"] + rail["width"] * 0.4, middle)
    page.mouse.move(rail["x"] + 1, middle)
    page.mouse.up()
    expect(plot.get_by_text("Loss scale S = 2⁻¹⁰")).to_be_visible()
    expect(plot.get_by_text("FP16 at S = 2⁻¹⁰ flushes", exact=False)).to_be_visible()
    assert plot.locator(".annotation-text").first.text_content() != before


def test_the_whatif_slider_moves_the_window_without_the_server(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/whatif")
    page.wait_for_selector(".slider-container", state="attached", timeout=30_000)
    page.wait_for_timeout(500)
    page.context.set_offline(True)
    slide_to_the_left(page)
    keep_picture(page, "whatif-slid")
    assert complaints.strangers == []
    assert [e for e in without_probing(complaints.errors) if "ERR_INTERNET_DISCONNECTED" not in e] == []


def test_a_report_opens_offline(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(RunStore.at(SAMPLES).list_runs()[:2], path)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector(BARS, state="attached")
    expect(page.locator(".js-plotly-plot")).to_have_count(6)
    slide_to_the_left(page)
    keep_picture(page, "report")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []


def test_a_figure_is_saved_as_png_svg_and_csv(browser: Browser, server: Server, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    complaints = watch_page(page, server.url)
    page.goto(server.url)
    page.wait_for_selector(BARS, state="attached", timeout=30_000)
    saved = {}
    for kind in ("PNG", "SVG", "CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind, exact=True).click()
        assert download.value.suggested_filename == f"lsviz-explore-spectra.{kind.lower()}"
        download.value.save_as(tmp_path / kind)
        saved[kind] = (tmp_path / kind).read_bytes()
    assert saved["PNG"].startswith(b"\x89PNG")
    assert saved["SVG"].startswith(b"<svg")
    table = pd.read_csv(io.BytesIO(saved["CSV"]))
    kept = table.groupby(["run", "tensor"])["kept"].sum()
    assert kept["no scaling", "layer1"] == 0
    assert kept["constant:1024", "layer1"] > 0.99
    assert complaints.strangers == []
    assert complaints.errors == []


def test_a_link_can_leave_controls_out(browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{server.url}/?hide=step,navigation,nonsense&step=400")
    page.wait_for_selector(BARS, state="attached", timeout=30_000)
    expect(page.get_by_text("step 400 of 1,000")).to_be_visible()
    expect(page.get_by_role("slider")).to_be_hidden()
    expect(page.get_by_test_id("stTopNavLink").first).to_be_hidden()
    expect(page.get_by_text("Beside no scaling")).to_be_visible()
    page.get_by_role("link", name="Compare runs").click()
    page.wait_for_url("**/compare?**hide=step**")
    page.wait_for_selector(BARS, state="attached")
    expect(page.get_by_role("slider")).to_be_hidden()
    page.get_by_role("button", name="share").click()
    page.get_by_role("button", name="Clear all").last.click()
    expect(page.get_by_role("slider")).to_be_visible()
    page.wait_for_function("!location.search.includes('hide')")


@pytest.mark.parametrize("path", ["launch?task=digits-mlp&seed=3", "compare"])
def test_a_link_into_a_page_opens_without_a_complaint(path: str, browser: Browser, server: Server) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/{path}")
    if path.startswith("launch"):
        expect(page.get_by_text("Shallow ReLU net, digits.")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("3")
    else:
        page.wait_for_selector(BARS, state="attached", timeout=30_000)
    # The server's first visitor gets the whole dashboard too, not the bare page.
    expect(page.get_by_test_id("stTopNavLink").get_by_text("Explore", exact=True)).to_be_visible()
    assert page.get_by_role("link", name="main", exact=True).count() == 0
    assert without_probing(complaints.errors) == []
    assert complaints.strangers == []


@pytest.mark.skipif(not os.environ.get("CI"), reason="only where a browser must be there")
def test_ci_has_a_browser() -> None:
    from tests.browser.conftest import CHROMIUM

    assert CHROMIUM
    assert Path(CHROMIUM).exists()

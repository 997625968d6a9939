"""Figures in a real browser: saved, slid without the server, and in a report that needs none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.report import write_report
from lsviz.runs.store import RunStore
from tests.browser.conftest import Server
from tests.browser.driving import (
    BARS,
    choose,
    keep_picture,
    open_context,
    settle,
    watch_page,
    without_probing,
)
from tests.conftest import SAMPLES

pytestmark = pytest.mark.browser


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


def test_the_whatif_slider_moves_the_window_without_the_server(browser: Browser, dashboard: Server) -> None:
    page = open_context(browser, height=1400).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(f"{dashboard.url}/whatif")
    page.wait_for_selector(".slider-container", state="attached")
    page.wait_for_timeout(500)
    page.context.set_offline(True)
    slide_to_the_left(page)
    keep_picture(page, "whatif-slid")
    assert complaints.strangers == []
    assert [e for e in without_probing(complaints.errors) if "ERR_INTERNET_DISCONNECTED" not in e] == []


DRAWN = """name => {
  window.lsvizDrawn = new Set();
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes)
        if (node.matches)
          for (const one of [node, ...node.querySelectorAll(name)])
            if (one.matches(name)) window.lsvizDrawn.add(one);
  }).observe(document.querySelector('[data-testid="stMain"]'), { childList: true, subtree: true });
}"""


@pytest.mark.parametrize(
    ("path", "figure", "act"),
    [
        ("", "explore_spectra", lambda page: page.get_by_role("slider").first.press("ArrowRight")),
        ("blame", "headroom", choose("Run", "digits-mlp · constant:128")),
        ("policies", "traces", lambda page: page.get_by_role("button", name="3", exact=True).click()),
        ("layers", "layers_map", lambda page: page.get_by_role("slider").first.press("ArrowRight")),
    ],
)
def test_streamlit_draws_each_figure_once(
    browser: Browser, dashboard: Server, path: str, figure: str, act: Callable[[Page], object]
) -> None:
    page = open_context(browser).new_page()
    page.goto(f"{dashboard.url}/{path}")
    page.wait_for_selector(f".st-key-{figure} .main-svg", state="attached")
    settle(page)
    page.evaluate(DRAWN, f".st-key-{figure} .xtick")
    act(page)
    page.wait_for_function("window.lsvizDrawn.size")
    settle(page)
    assert page.evaluate("window.lsvizDrawn.size") == page.locator(f".st-key-{figure} .xtick").count()


def test_a_report_opens_offline(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(RunStore.at(SAMPLES).list_runs()[:2], path)
    page = open_context(browser).new_page()
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


def test_a_figure_is_saved_as_png_svg_and_csv(browser: Browser, dashboard: Server, tmp_path: Path) -> None:
    page = open_context(browser, height=1400).new_page()
    complaints = watch_page(page, dashboard.url)
    page.goto(dashboard.url)
    page.wait_for_selector(BARS, state="attached")
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

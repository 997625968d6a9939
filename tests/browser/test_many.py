"""Much on disk: a thousand runs, and one run of 10,000 steps of 100 layers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from lsviz.exponents import ExponentHistogram
from lsviz.runs.config import RunConfig
from lsviz.runs.schema import ExponentRow, StepRow
from lsviz.runs.store import RunStore
from lsviz.runs.writer import RunWriter, create_run
from tests.browser.conftest import Server, start_server
from tests.browser.driving import keep_picture, open_context, settle, watch_page, without_probing
from tests.conftest import SAMPLES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

STEPS, LAYERS, RUNS = 10_000, 100, 1_000
MAP = ".st-key-layers_map .js-plotly-plot"


def write_long_run(root: Path) -> str:
    """Write a run of which every layer's gradients shrink by and by, and return its id."""
    random = np.random.default_rng(0)
    sizes = [ExponentHistogram.of(random.normal(size=4096) * 2.0**-k) for k in range(40)]
    path = create_run(root, RunConfig.build(task="sigmoid-mlp", policy="constant:1024", steps=STEPS))
    with RunWriter(path) as writer:
        for step in range(STEPS):
            rows = [
                ExponentRow(
                    step, f"layer{k:03d}", "activation_grad", False, 1024.0, sizes[(step // 500 + k) % 40]
                )
                for k in range(LAYERS)
            ]
            writer.append(StepRow(step, 1.0, None, 1024.0, True, False, 1e-3, 1.0, 1.0, 0.1), rows)
        writer.end("finished")
    return path.name


def copy_runs(root: Path, number: int) -> list[str]:
    """Copy a sample run under so many ids, its tables by links, and return the ids."""
    root.mkdir(exist_ok=True)
    model = RunStore.at(SAMPLES).list_runs()[0]
    record = json.loads((model.path / "run.json").read_text())
    own = shutil.copytree(model.path, root.parent / "model")  # on the disk that the links are made on
    ids = []
    for at in range(number):
        record["run_id"] = f"20250101-{at // 3600:02d}{at // 60 % 60:02d}{at % 60:02d}-{at:08x}"
        folder = root / record["run_id"]
        folder.mkdir()
        for table in own.iterdir():
            if table.name != "run.json":
                os.link(table, folder / table.name)
        (folder / "run.json").write_text(json.dumps(record))
        ids.append(record["run_id"])
    return ids


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[str], str]]:
    """A server with a thousand runs and a long one: their ids, and the long one's."""
    folder = tmp_path_factory.mktemp("crowded")
    ids = copy_runs(folder / "runs", RUNS)
    long = write_long_run(folder / "runs")
    with start_server(folder) as started:
        yield started, ids, long


def test_a_thousand_runs_are_listed_searched_and_scrolled(
    browser: Browser, crowded: tuple[Server, list[str], str]
) -> None:
    server, ids, _ = crowded
    page = open_context(browser).new_page()
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/runs")
    number = RUNS + 1 + len(RunStore.at(SAMPLES).list_runs())
    expect(page.get_by_role("heading", name=f"{number:,} runs of")).to_be_visible()
    settle(page)
    keep_picture(page, "runs-1000")
    table = page.get_by_test_id("stDataFrame")
    first = table.locator("tbody tr").first
    expect(first).to_have_attribute("aria-rowindex", "2")
    table.hover()
    page.mouse.wheel(0, 20_000)
    expect(first).not_to_have_attribute("aria-rowindex", "2")
    page.get_by_label("Search", exact=True).fill(ids[123])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"1 run of {number:,} for")).to_be_visible()
    expect(table.get_by_text(ids[123])).to_be_attached()
    assert ids[123] in page.url
    page.context.close()
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


def test_layers_opens_on_ten_thousand_steps_of_a_hundred_layers(
    browser: Browser, crowded: tuple[Server, list[str], str]
) -> None:
    server, _, long = crowded
    page = open_context(browser, height=1600).new_page()
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/layers?runs={long}&step=9999&layer=layer050")
    expect(page.get_by_text("Step 9,999.")).to_be_visible()
    page.wait_for_selector(f"{MAP} .bars path", state="attached")
    words = "Exponents of layer050 over the recorded steps, one panel a run; the dashed line is step 9999."
    expect(page.get_by_role("figure", name=words)).to_be_visible()
    settle(page)
    assert page.get_by_test_id("stException").count() == 0
    keep_picture(page, "layers-10000")
    page.context.close()
    assert complaints.strangers == []
    assert without_probing(complaints.errors) == []


def rows_of(page: Page) -> dict[str, float]:
    """Return the height on the screen of each row of the map of layers."""
    found = {}
    for label in page.locator(f"{MAP} .ytick text").all():
        box = label.bounding_box()
        assert box is not None
        found[label.text_content() or ""] = box["y"] + box["height"] / 2
    return found


def test_a_click_on_a_layer_shows_its_history_and_the_address_follows(
    browser: Browser, dashboard: Server
) -> None:
    runs = {run.config.policy: run.run_id for run in RunStore.at(SAMPLES).list_runs()[:3]}
    page = open_context(browser, height=1600).new_page()
    page.goto(f"{dashboard.url}/layers?runs={','.join(runs.values())}&step=400")
    page.wait_for_selector(f"{MAP} .bars path", state="attached")
    settle(page)
    for facet in ("no scaling", "constant:1024", "gradscaler"):
        expect(page.locator(MAP).get_by_text(facet)).to_be_visible()
    area = page.locator(f"{MAP} .nsewdrag").first.bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + area["width"] / 4, rows_of(page)["layer3"])
    expect(page.get_by_role("combobox", name="History of")).to_have_value("layer3")
    words = "Exponents of layer3 over the recorded steps, one panel a run; the dashed line is step 400."
    expect(page.get_by_role("figure", name=words)).to_be_visible()
    page.wait_for_url("**layer=layer3**")
    keep_picture(page, "layers-clicked")
    linked = open_context(browser, height=1600).new_page()
    linked.goto(page.url)
    expect(linked.get_by_role("figure", name=words)).to_be_visible()
    expect(linked.get_by_text("Step 400.")).to_be_visible()
    for context in (page.context, linked.context):
        context.close()

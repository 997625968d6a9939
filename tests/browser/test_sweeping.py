"""Launch's panel of sweeps in a real browser: every state of one, light and dark, wide and narrow."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from lsviz.jobs.sweeping import list_sweeps
from lsviz.runs.config import RunConfig
from lsviz.runs.process import own_mark
from lsviz.runs.sweeps import Part
from tests.browser.conftest import Server
from tests.browser.driving import PICTURES, open_context, settle, watch_page, without_probing
from tests.browser.test_pages import SCROLLS, faults_of
from tests.jobs.test_sweeping import put

pytestmark = pytest.mark.browser

ADDRESS = "ray-head.cluster.some-university.example:6379"


def part(seed: int, **values: object) -> Part:
    config = RunConfig.build(task="shapes-ssd", policy="gradscaler:init_scale=2^10", seed=seed, steps=400)
    return Part.model_validate({"config": config, **values})


def fill(server: Server) -> None:
    """Write four sweeps: under way, finished, ended without a cluster, and one that lost its driver."""
    done = {"state": "finished", "metric_name": "mean IoU", "metric": 0.5}
    under_way = [part(0, run_id="r0", **done), part(1, state="running", step=150), part(2)]
    note = "this Ray cluster asks for no token: whoever reaches it can run any code on it"
    live = {"state": "running", "notes": [note], **own_mark()}
    put(server.runs, "20260104-0", cluster=ADDRESS, parts=under_way, **live)
    whole = [part(0, run_id="r0", **done), part(1, run_id="r1", **done)]
    put(server.runs, "20260103-0", state="finished", parts=whole)
    reason = f"no Ray cluster answers at {ADDRESS!r} (Name or service not known)"
    path = put(server.runs, "20260102-0", cluster=ADDRESS, state="failed", error=reason, parts=[part(0)])
    (path / "log.txt").write_text("what the driver said\n")
    broken = part(0, state="failed", step=70, error="MemoryError: it took more than the 4 GiB that it may")
    put(server.runs, "20260101-0", parts=[broken, part(1)], **{**live, "start_ticks": 1})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_is_whole_and_readable(scheme: str, browser: Browser, server: Server) -> None:
    fill(server)
    page = open_context(browser, scheme=scheme, height=1500).new_page()
    complaints = watch_page(page, server.url)
    page.goto(f"{server.url}/launch?engine=ray")
    PICTURES.mkdir(exist_ok=True)
    faults: list[str] = []
    for width in (1400, 800):
        page.set_viewport_size({"width": width, "height": 1500})
        panel = page.locator(".st-key-live_sweeps")
        for words in ("under way, 1 of 3 done", "2 runs on Ray: finished", "failed, 0 of 1", "interrupted"):
            expect(panel.get_by_text(words)).to_be_visible()
        expect(page.get_by_text("Recent runs")).to_be_visible()
        settle(page)  # while the script runs, Streamlit fades what it has not come to yet
        for button in panel.get_by_role("button").all():
            box = button.bounding_box()
            assert box is not None
            if box["x"] + box["width"] > width:
                faults.append(f"{width}: {button.inner_text()} is cut off")
        faults += [f"{width}: scrolls sideways: {at}" for at in page.evaluate(SCROLLS)]
        faults += [f"{width}: {fault}" for fault in faults_of(page) if "with a text of" not in fault]
        page.screenshot(path=PICTURES / f"sweeps-{scheme}-{width}.png")
    assert not faults, "\n".join(faults)
    assert without_probing(complaints.errors) == []
    assert complaints.strangers == []


def test_dismiss_takes_one_away_while_another_is_under_way(browser: Browser, server: Server) -> None:
    fill(server)
    page = open_context(browser).new_page()
    page.goto(f"{server.url}/launch")
    panel = page.locator(".st-key-live_sweeps")
    expect(panel.get_by_role("button", name="Dismiss")).to_have_count(3)
    panel.get_by_role("button", name="Dismiss").first.click()
    expect(panel.get_by_role("button", name="Dismiss")).to_have_count(2)
    expect(panel.get_by_text("2 runs on Ray: finished")).to_have_count(0)
    expect(panel.get_by_text("under way, 1 of 3 done")).to_be_visible()
    assert [sweep.name for sweep in list_sweeps(server.runs)[0]] == ["20260104-0", "20260102-0", "20260101-0"]

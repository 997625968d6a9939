"""The pictures of the README, taken of the sample runs: ``python docs/pictures.py``.

It takes Chromium, as ``make test`` does. Each picture ends below the figure that it is about.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

REPOSITORY: Final = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from lsviz.runs.store import RunStore  # noqa: E402
from tests.browser.conftest import CHROMIUM, FLAGS, start_server  # noqa: E402
from tests.browser.driving import open_context, settle  # noqa: E402

FOLDER: Final = REPOSITORY / "docs" / "images"
SAMPLES: Final = REPOSITORY / "sample_runs"
MARGIN: Final = 24


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        name: Of its file and its page.
        query: The address's state.
        figure: Key of the last figure in the picture.
        begins: CSS of what stands at its top; empty for the navigation.
    """

    name: str
    query: dict[str, str]
    figure: str
    begins: str = ""


def pictures() -> list[Picture]:
    """Return all of them, with the sample runs' ids in their addresses."""
    ids = {
        (run.config.task, run.config.policy, run.config.precision): run.run_id
        for run in RunStore.at(SAMPLES).list_runs()
    }
    three = [ids["sigmoid-mlp", policy, "fp16"] for policy in ("none", "constant:1024", "gradscaler")]
    hide = {"hide": "save"}
    return [
        Picture("explore", hide, "explore_spectra"),
        Picture("whatif", {"seen": three[1]} | hide, "scale_map"),
        Picture("layers", {"runs": ",".join(three), "step": "400"} | hide, "layer_history"),
        Picture("policies", hide, "traces"),
        Picture("reproduce", {"experiment": "image-fit, loss x 2^-4"} | hide, "scale_curve", "h3"),
        Picture("blame", {"seen": ids["shapes-ssd", "gradscaler", "fp16"]} | hide, "headroom"),
    ]


def take(browser: Browser, url: str, picture: Picture) -> Path:
    """Open the page and keep it as far as the end of the figure."""
    page = open_context(browser, height=2400).new_page()
    page.goto(f"{url}/{'' if picture.name == 'explore' else picture.name}?{urlencode(picture.query)}")
    figure = page.locator(f".st-key-{picture.figure} .js-plotly-plot")
    figure.wait_for()
    settle(page)
    box = figure.bounding_box()
    if box is None:
        raise RuntimeError(f"{picture.name} shows no figure {picture.figure}")
    first = page.locator(picture.begins).first.bounding_box() if picture.begins else None
    top = first["y"] - MARGIN if first else 0
    path = FOLDER / f"{picture.name}.png"
    page.screenshot(
        path=path, clip={"x": 0, "y": top, "width": 1400, "height": box["y"] + box["height"] + MARGIN - top}
    )
    page.context.close()
    return path


def main() -> None:
    """Start the dashboard, take all pictures, and say where they are."""
    with (
        sync_playwright() as playwright,
        TemporaryDirectory() as folder,
        start_server(Path(folder)) as server,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for picture in pictures():
            print(take(browser, server.url, picture))
        browser.close()


if __name__ == "__main__":
    main()

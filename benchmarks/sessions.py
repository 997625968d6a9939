"""A class of thirty, and one of sixty, opens the dashboard at the same moment, on loopback.

Sessions speak Streamlit's own protocol: each loads the page and the files that it names, opens its
connection, asks for Explore and takes all that comes until the script is done. One more is a real
Chromium, which starts with them and has to paint: sixty of those would measure this machine's browser.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Browser, sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from benchmarks.browsing import APP, CHROMIUM, launched, new_page, seconds_to_open, server
from benchmarks.pages import PICTURE, write_many
from benchmarks.timing import save

LIMITS = {30: 5.0, 60: 12.0}
"""Sessions, and the seconds in which all of them have their first page."""
ROUNDS = 3
LISTED, QUEUED, LIST_LIMIT = 1000, 200, 1.0
_NAMED = re.compile(r'(?:src|href)="\.?/?(static/[^"]+)"')


def load_files(url: str) -> int:
    """Load the page and the files that it names, as a browser without a cache does; return the bytes."""
    with urlopen(url) as answer:
        page = answer.read()
    read = len(page)
    for name in _NAMED.findall(page.decode()):
        with urlopen(f"{url}/{name}") as answer:
            read += len(answer.read())
    return read


async def open_session(
    url: str, files: ThreadPoolExecutor, page: str = "", stay: Callable[[], Awaitable[None]] | None = None
) -> tuple[float, bool]:
    """Open one session; return the seconds until its script is done, and whether a figure or table came.

    Args:
        url: The server's.
        files: Where files are loaded.
        page: Which page; the first one by default.
        stay: Awaited before the session is left.
    """
    started = time.perf_counter()
    await asyncio.get_running_loop().run_in_executor(files, load_files, url)
    address = f"ws{url.removeprefix('http')}/_stcore/stream"
    async with connect(
        address, subprotocols=[Subprotocol("streamlit")], max_size=None, compression=None
    ) as socket:
        ask = BackMsg()
        ask.rerun_script.query_string = ""
        ask.rerun_script.page_name = page
        ask.rerun_script.context_info.url = f"{url}/{page}"
        await socket.send(ask.SerializeToString())
        seen = False
        async for packet in socket:
            message = ForwardMsg.FromString(packet)
            seen |= message.delta.new_element.WhichOneof("type") in ("plotly_chart", "dataframe")
            if message.WhichOneof("type") == "script_finished":
                break
        taken = time.perf_counter() - started
        if stay is not None:
            await stay()
    return taken, seen


async def open_all(url: str, number: int, page: str = "") -> list[float]:
    """Open so many sessions at once; return the seconds of each."""
    with ThreadPoolExecutor(number) as files:
        done = await asyncio.gather(*(open_session(url, files, page) for _ in range(number)))
    assert all(seen for _, seen in done), "a session had neither figure nor table"
    return [seconds for seconds, _ in done]


def measure_class(browser: Browser, number: int) -> tuple[float, float, float]:
    """Return the seconds until all sessions had their page, until half had it, and until Chromium painted."""
    with server(APP) as url, ThreadPoolExecutor(1) as beside:
        page = new_page(browser)
        others = beside.submit(asyncio.run, open_all(url, number))
        painted = seconds_to_open(page, url, PICTURE)
        seconds = others.result()
        page.context.close()
    return max(seconds), statistics.median(seconds), painted


def tell(table: dict[str, float], name: str, taken: Sequence[float], limit: float | None) -> None:
    """Print and keep the median and the least of some times, held against a limit."""
    middle, least = statistics.median(taken), min(taken)
    said = "" if limit is None else f"  limit {limit:g} s: {'ok' if middle <= limit else 'over'}"
    print(f"  {name:44s} {middle:6.2f} s (least {least:.2f}){said}", flush=True)
    table[name] = middle


def measure_list(folder: Path) -> list[float]:
    """Return the seconds until Runs stands with many finished and queued runs, for the second visitor on."""
    write_many(folder, LISTED + QUEUED)
    for status in sorted(folder.glob("*/status.json"))[:QUEUED]:
        text = status.read_text().replace('"state": "finished"', '"state": "queued"')
        # As a submitted run that waits: not yet given up for lost.
        status.write_text(re.sub(r'"updated": [\d.e+]+', f'"updated": {time.time() + 3600:.0f}', text))
    with server(APP, folder) as url:
        return [asyncio.run(open_all(url, 1, "runs"))[0] for _ in range(1 + ROUNDS)][1:]


def main() -> None:
    """Measure all, print and save."""
    table: dict[str, float] = {}
    with sync_playwright() as playwright:
        if CHROMIUM is None:
            print("no Chromium: install Debian's package chromium")
            return
        browser = launched(playwright)
        for number, limit in LIMITS.items():
            rounds = [measure_class(browser, number) for _ in range(ROUNDS)]
            last, half, painted = zip(*rounds, strict=True)
            tell(table, f"{number} sessions, the last one's Explore", last, limit)
            tell(table, f"{number} sessions, half of them", half, None)
            tell(table, f"Chromium among {number}, Explore painted", painted, limit)
        browser.close()
    with tempfile.TemporaryDirectory() as name:
        listed = measure_list(Path(name))
    tell(table, f"{LISTED:,} finished and {QUEUED} queued runs, page Runs", listed, LIST_LIMIT)
    save("sessions", {"seconds": table})


if __name__ == "__main__":
    main()

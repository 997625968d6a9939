"""The dashboard's server, ready for its first visitor.

Streamlit imports a script's modules when the first visitor comes, which costs that visitor more than
half a second; this server imports them before it answers.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import pandas as pd
import psutil
import pyarrow as pa
import streamlit as st
import streamlit.config
from PIL import Image
from starlette.middleware import Middleware
from streamlit.runtime.scriptrunner import get_script_run_ctx

from lsviz.charts.exponents import exponent_figure
from lsviz.jobs.dashboard import open_when_it_answers
from lsviz.ui.access import server_reason, start_line
from lsviz.ui.keeping import KeptFiles

SCRIPT: Final = Path(__file__).parent / "frame" / "main.py"
"""What runs for each visitor."""
MIDDLEWARE: Final = (Middleware(KeptFiles),)
PARTS: Final = (
    *("blaming", "comparing", "exploring", "launching", "layering", "learning", "live", "managing"),
    *("replaying", "reproducing", "running", "tracing", "updating", "whatif"),
)
"""What the pages import."""
LATE: Final = ("lsviz.ui.frame.menu", "lsviz.ui.frame.admitting", "lsviz.ui.stepping", "pyarrow.dataset")
"""What the frame, and pandas as it reads a run, import when the first script runs."""


@asynccontextmanager
async def warm_up(app: st.App) -> AsyncIterator[None]:
    """Tell what the settings in force allow, import what the pages need and draw an empty figure."""
    _tell_settings()
    send_at_once()
    # Tables of some hundred rows are read twice as fast with words kept as Python has them.
    pd.set_option("mode.string_storage", "python")
    for part in PARTS:
        import_module(f"lsviz.ui.{part}")
    for module in LATE:
        import_module(module)
    exponent_figure([], ["layer"], "light").to_json()
    pa.Table.from_pandas(pd.DataFrame({"a": [1]})).to_pandas()
    Image.init()  # the page's icon
    # Streamlit's first element asks who runs it, which looks for the file of every module there is.
    inspect.stack()
    # Streamlit collects garbage after every run of a script; what stays for good need not be looked through.
    gc.collect()
    gc.freeze()
    yield


def send_at_once() -> None:
    """Have this process's listening sockets send what is small without waiting for what comes next.

    The kernel holds a second small packet back until the first is acknowledged, which browsers put off by
    40 ms (RFC 896, RFC 1122 4.2.3.2): a page loads some sixty files. asyncio turns that off for sockets that
    name TCP as their protocol, but Streamlit 1.67 binds one that does not. Connections inherit the option.
    """
    with suppress(psutil.Error, OSError):
        for found in psutil.Process().net_connections(kind="tcp"):
            if found.status == psutil.CONN_LISTEN and found.fd >= 0:
                with socket.socket(fileno=os.dup(found.fd)) as listening:
                    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tell_settings() -> None:
    line = start_line()
    if line is not None:
        print(line, flush=True)
    if server_reason() is not None:
        # Files would be taken into memory before a page is asked: nobody can import here.
        streamlit.config.set_option("server.maxUploadSize", 0)


def in_script() -> bool:
    """Tell whether streamlit runs the calling file as a visitor's script, as AppTest does."""
    return get_script_run_ctx(suppress_warning=True) is not None


if __name__ == "__main__":
    for url in sys.argv[2:]:
        open_when_it_answers(url)
    with suppress(KeyboardInterrupt):
        st.App(SCRIPT, lifespan=warm_up, middleware=MIDDLEWARE).run(config=json.loads(sys.argv[1]))

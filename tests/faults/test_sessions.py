"""A class opens the dashboard at the same moment; `benchmarks/sessions.py` tells how long that takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.pages import write_many
from benchmarks.sessions import open_all
from tests.browser.conftest import start_server

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("number", [30, 60])
def test_every_session_of_a_class_has_its_page(number: int, tmp_path: Path) -> None:
    with start_server(tmp_path) as server:
        for _ in range(3):
            assert len(asyncio.run(open_all(server.url, number))) == number
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_sixty_sessions_list_a_thousand_runs(tmp_path: Path) -> None:
    write_many(tmp_path / "runs", 1000)
    with start_server(tmp_path) as server:
        assert len(asyncio.run(open_all(server.url, 60, "runs"))) == 60
    assert "Traceback" not in (tmp_path / "server.log").read_text()

"""Servers as people start them: what they say of their settings, and what they let a stranger do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lsviz.jobs.dashboard import SETTINGS
from lsviz.ui.serving import send_at_once
from tests.conftest import PATIENCE, REPOSITORY, clean_environment
from tests.serving import wait_until_served

SECRET = "a-token-of-some-length"
SHIPPED = {
    "server.address": "127.0.0.1",
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.enableCORS": True,
    "server.enableXsrfProtection": True,
    "server.fileWatcherType": "none",
    "client.showErrorDetails": "none",
    "browser.gatherUsageStats": False,
}
STREAMLIT = ("-m", "streamlit", "run", "app.py", "--server.headless", "true", "--server.port")
DASH = ("-m", "lsviz", "dash", "--no-browser", "--port")


@contextmanager
def started(log: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a server on a free port, which comes last among its arguments; yield it and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    split = max(arguments.index(word) for word in arguments if word in ("--server.port", "--port")) + 1
    command = [sys.executable, *arguments[:split], str(port), *arguments[split:]]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=clean_environment(**environment),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_served(process, url, log)
        yield process, url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=PATIENCE)


def lines_of(log: Path) -> list[str]:
    """Return what the server said of its settings."""
    return [line for line in log.read_text().splitlines() if "settings" in line or "LSVIZ" in line]


def test_both_ways_to_start_have_the_shipped_settings() -> None:
    config = tomllib.loads((REPOSITORY / ".streamlit" / "config.toml").read_text())
    for name, value in SHIPPED.items():
        section, _, key = name.partition(".")
        assert config[section][key] == value, name
        assert SETTINGS[name] == value, name


@pytest.mark.parametrize("way", [STREAMLIT, DASH], ids=["streamlit", "dash"])
def test_as_shipped_a_server_says_nothing(way: Sequence[str], tmp_path: Path) -> None:
    with started(tmp_path / "log", *way):
        assert lines_of(tmp_path / "log") == []


@pytest.mark.parametrize(
    ("way", "environment", "named"),
    [
        ((*STREAMLIT,), {"STREAMLIT_SERVER_ADDRESS": "0.0.0.0"}, "server.address = 0.0.0.0"),
        (
            (*STREAMLIT, "--server.enableXsrfProtection", "false"),
            {},
            "server.enableXsrfProtection = false",
        ),
        ((*DASH, "--address", "0.0.0.0", "--host", "lab.example"), {}, "127.0.0.1, lab.example"),
    ],
    ids=["variable", "flag", "dash"],
)
def test_what_weakens_is_told_in_one_line_and_ends_changing(
    way: Sequence[str], environment: dict[str, str], named: str, tmp_path: Path
) -> None:
    with started(tmp_path / "log", *way, **environment):
        (line,) = lines_of(tmp_path / "log")
        assert named in line
        assert line.endswith("view only, since LSVIZ_TOKEN is not set")


def test_dash_takes_no_address_from_a_variable(tmp_path: Path) -> None:
    with started(tmp_path / "log", *DASH, STREAMLIT_SERVER_ADDRESS="0.0.0.0"):
        assert lines_of(tmp_path / "log") == []


def test_the_token_is_told_of_and_not_told(tmp_path: Path) -> None:
    with started(tmp_path / "log", *DASH, LSVIZ_TOKEN=SECRET) as (_, url):
        urllib.request.urlopen(f"{url}/?token={SECRET}", timeout=PATIENCE).close()
        assert lines_of(tmp_path / "log") == [
            "lsviz: who gives LSVIZ_TOKEN may change things, others only look"
        ]
    assert SECRET not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_dash_that_is_killed_leaves_no_server(number: signal.Signals, tmp_path: Path) -> None:
    with started(tmp_path / "log", *DASH) as (process, url):
        process.send_signal(number)  # to the process that was started, and to no other
        process.wait(timeout=PATIENCE)
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)


def test_an_address_of_another_machine_is_refused_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *DASH, "8517", "--address", "192.0.2.1"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lsviz: can't listen on '192.0.2.1', port 8517: ")
    assert done.stderr.count("\n") == 1


def waits(connection: socket.socket) -> bool:
    """Tell whether small packets wait for an acknowledgement of those before."""
    return not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connections_do_not_hold_small_packets_back(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        listening.listen()
        before = socket.create_connection(listening.getsockname()[:2])
        with before, listening.accept()[0] as accepted:
            assert waits(accepted)
        send_at_once()
        with socket.create_connection(listening.getsockname()[:2]), listening.accept()[0] as accepted:
            assert not waits(accepted)

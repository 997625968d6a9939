"""lsviz figure: what reports hold, as files of their own, drawn by a real browser."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from lsviz.cli import main
from lsviz.figurefiles import FIGURES
from lsviz.figures import Subject
from lsviz.jobs import doctor
from lsviz.jobs.browser import find_browser
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from tests.conftest import PATIENCE, SAMPLES, train_run

Output = pytest.CaptureFixture[str]


@pytest.fixture
def browser() -> Path:
    """The browser that draws."""
    found = find_browser()
    if found is None:
        reason = "no Chromium: install Debian's package chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def skipping() -> Run:
    """A sample with a fault, a skipped step, references and a metric."""
    return next(run for run in RunStore.at(SAMPLES).list_runs() if run.config.injections)


def draw(run: Run, name: str, out: Path, *more: str) -> int:
    return main(["figure", str(run.path), name, "-o", str(out), *more])


def test_a_png_has_the_size_and_colours_asked_for(browser: Path, unscaled_run: Run, tmp_path: Path) -> None:
    size = ("--width", "600", "--height", "300", "--scale", "1.5")
    assert draw(unscaled_run, "spectra", tmp_path / "light.png", *size) == 0
    assert draw(unscaled_run, "spectra", tmp_path / "dark.png", *size, "--scheme", "dark") == 0
    with Image.open(tmp_path / "light.png") as light, Image.open(tmp_path / "dark.png") as dark:
        assert light.size == dark.size == (900, 450)
        assert light.convert("L").getpixel((0, 0)) > 200
        assert dark.convert("L").getpixel((0, 0)) < 80
        assert len(light.convert("RGB").resize((90, 45)).getcolors(4050)) > 20, "something is drawn"


def test_drawings_hold_words_as_words(
    browser: Path, unscaled_run: Run, scaled_run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "layers.svg"
    assert draw(unscaled_run, "layers", out, "--with", str(scaled_run.path), "--step", "10") == 0
    drawing = out.read_text("utf-8")
    assert drawing.startswith("<svg")
    for word in ("layer1", "constant:1024", "% flushed"):
        assert word in drawing
    assert draw(unscaled_run, "timelines", tmp_path / "t.pdf") == 0
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF-")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder of a short name: Chromium makes a socket below TMPDIR, whose path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="lsviz-") as name:
        yield Path(name)


def test_the_browser_reaches_nobody_and_leaves_nothing(
    browser: Path, unscaled_run: Run, tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser of ours keeps what it was told and the page that it was given."""
    monkeypatch.setenv("TMPDIR", str(short_folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    script = tmp_path / "browser"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/told\ncp {short_folder}/*/index.html {tmp_path}/page\n'
        f'exec {browser} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(script))
    assert draw(unscaled_run, "spectra", tmp_path / "s.png") == 0
    assert "--proxy-server=http://127.0.0.1:9" in (tmp_path / "told").read_text()
    page = (tmp_path / "page").read_text()
    assert "plotly.min.js" in page
    assert "http" not in page, "no script comes from elsewhere"
    assert {path.name for path in tmp_path.iterdir()} == {"browser", "told", "page", "s.png"}
    deadline = time.monotonic() + PATIENCE
    while any(short_folder.iterdir()):  # a browser takes a moment to be gone
        assert time.monotonic() < deadline, list(short_folder.iterdir())
        time.sleep(0.1)


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "curve"])
def test_every_figure_is_a_page_and_json(name: str, skipping: Run, tmp_path: Path) -> None:
    for ending in ("html", "json"):
        assert draw(skipping, name, tmp_path / f"figure.{ending}", "--scheme", "dark") == 0
    page = (tmp_path / "figure.html").read_text("utf-8")
    assert page.count('class="plotly-graph-div"') == 1
    figure = json.loads((tmp_path / "figure.json").read_text("utf-8"))
    assert figure["data"]
    assert figure["layout"]["width"] == 1000
    assert figure["layout"]["height"] > 100


def test_the_curve_takes_several_runs(tmp_path: Path, capsys: Output) -> None:
    runs = [r for r in RunStore.at(SAMPLES).list_runs() if r.config.task == "sigmoid-mlp"]
    assert draw(runs[0], "curve", tmp_path / "c.json") == 2
    assert "curve needs 3 constant scales of one task; name more runs with --with" in capsys.readouterr().err
    assert FIGURES["curve"].make(Subject(runs)) == []  # constant:1024 and none are two


def test_help_and_reference_name_every_figure(capsys: Output) -> None:
    assert main(["figure", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in FIGURES)


@pytest.mark.parametrize("name", ["whatif", "scales", "headroom"])
def test_a_run_without_gradients_is_told_how_to_get_some(name: str, tmp_path: Path, capsys: Output) -> None:
    run = train_run(
        tmp_path / "runs", task="digits-mlp", policy="none", steps=4, record_every=0, reference_every=0
    )
    assert draw(run, name, tmp_path / "s.json") == 2
    told = capsys.readouterr().err
    assert (
        f"nothing to draw: {name} needs gradients that can be asked; record some with --record-every" in told
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("spectra", "s.gif"),
            "can't tell what 's.gif' should be; end it in: .png, .svg, .pdf, .html, .json",
        ),
        (("spectre", "s.json"), "unknown figure 'spectre'; choose one of: spectra, layers, timelines"),
        (("curve", "s.json"), "nothing to draw: curve needs "),
        (("reaction", "s.json"), "nothing to draw: reaction needs an injected fault"),
        (
            ("layers", "s.json", "--step", "11"),
            "no gradients were recorded at step 11; the nearest step is 10",
        ),
        (("layers", "s.json", "--scheme", "blue"), "unknown scheme 'blue'; choose one of: light, dark"),
        (("layers", "s.json", "--width", "9"), "width: should be 100 to 10000 pixels, got 9"),
        (("layers", "s.json", "--scale", "nan"), "scale: should be 0.1 to 10, got nan"),
        (("layers", "s.png", "--width", "9000"), "scale: at width 9000 it should be at most 1.78, got 2"),
        (("layers", "no/s.json"), "can't write"),
    ],
)
def test_what_can_not_be_drawn_is_told_in_a_line(
    arguments: tuple[str, ...], reason: str, unscaled_run: Run, tmp_path: Path, capsys: Output
) -> None:
    name, out, *more = arguments
    assert draw(unscaled_run, name, tmp_path / out, *more) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_run_or_a_few(unscaled_run: Run, tmp_path: Path, capsys: Output) -> None:
    beside = ("--with", str(unscaled_run.path))
    assert draw(unscaled_run, "history", tmp_path / "h.json", *beside) == 2
    assert "figure history is drawn of 1 run, got 2" in capsys.readouterr().err
    assert draw(unscaled_run, "layers", tmp_path / "h.json", *beside * 4) == 2
    assert "figure layers is drawn of 1 to 4 runs, got 5" in capsys.readouterr().err


def test_runs_of_two_tasks_have_no_metric_in_common(
    unscaled_run: Run, skipping: Run, tmp_path: Path, capsys: Output
) -> None:
    assert draw(unscaled_run, "metric", tmp_path / "m.json", "--with", str(skipping.path)) == 2
    assert (
        "figure metric is drawn of runs of one task, got sigmoid-mlp, digits-cnn" in capsys.readouterr().err
    )


def test_without_kaleido_one_line_tells_how_to_get_it(
    unscaled_run: Run, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert draw(unscaled_run, "spectra", tmp_path / "s.pdf") == 2
    told = capsys.readouterr().err
    assert ".pdf needs the package kaleido: pip install 'lsviz[export]'" in told
    assert draw(unscaled_run, "spectra", tmp_path / "s.html") == 0


def test_without_a_browser_one_line_tells_how_to_get_it(
    unscaled_run: Run, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    monkeypatch.setattr("lsviz.jobs.browser.PLACES", ())
    monkeypatch.setattr(
        "choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None
    )  # it also looks in its own folder, whatever PATH is
    assert draw(unscaled_run, "spectra", tmp_path / "s.png") == 2
    told = capsys.readouterr().err
    assert ".png needs a browser: install Chromium or Chrome (Debian: apt-get install chromium)" in told
    (extra,) = (extra for extra in doctor.extras() if extra["name"] == "export")
    assert extra["get"].startswith("install Chromium or Chrome")
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    assert draw(unscaled_run, "spectra", tmp_path / "s.png") == 2
    assert "BROWSER_PATH should name a Chromium or Chrome, got '/nowhere/chrome'" in capsys.readouterr().err
    (extra,) = (extra for extra in doctor.extras() if extra["name"] == "export")
    assert "BROWSER_PATH should name" in extra["get"]


def test_a_program_that_is_no_browser_is_told(
    unscaled_run: Run, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "false").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "false").chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "false"))
    assert draw(unscaled_run, "spectra", tmp_path / "s.png") == 2
    told = capsys.readouterr().err
    assert "did not draw the figure" in told
    assert not (tmp_path / "s.png").exists()

"""Pictures in a run folder: what was drawn is what is read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsviz.runs.config import RunConfig
from lsviz.runs.reader import MAX_PICTURE_BYTES, open_run
from lsviz.runs.schema import ORIGINAL, PICTURE
from lsviz.runs.writer import RunWriter, create_run
from tests.conftest import train_run


@pytest.mark.parametrize("shape", [(4, 4), (8, 4, 3), (300, 20, 3)])
def test_a_picture_comes_back_pixel_by_pixel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = create_run(tmp_path, RunConfig.build(task="image-fit"))
    RunWriter(path).draw(PICTURE, pixels)
    data = open_run(path).picture()
    assert data is not None
    shown = np.asarray(Image.open(io.BytesIO(data)))
    times = shown.shape[0] // shape[0]
    assert times == max(1, 256 // max(shape[:2]))
    np.testing.assert_array_equal(shown[::times, ::times], pixels)
    assert not list(path.glob(".*.tmp"))


def test_what_is_no_picture_is_none(tmp_path: Path) -> None:
    path = create_run(tmp_path, RunConfig.build(task="image-fit"))
    assert open_run(path).picture() is None
    (path / PICTURE).write_text("<svg onload=alert(1)>")
    assert open_run(path).picture() is None
    (path / PICTURE).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(MAX_PICTURE_BYTES))
    assert open_run(path).picture() is None


def test_a_run_keeps_what_its_model_drew_and_what_it_should(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="image-fit", policy="constant:256", steps=60, record_every=0)
    drawn, original = run.picture(), run.picture(ORIGINAL)
    assert drawn is not None
    assert original is not None
    images = [np.asarray(Image.open(io.BytesIO(data)), dtype=float) for data in (drawn, original)]
    error = ((images[0] - images[1]) ** 2).mean() / 255**2
    # The file is 8 bits a channel, so the PSNR of what is seen is the metric's to a few hundredths.
    assert -10 * np.log10(error) == pytest.approx(run.status.metric, abs=0.3)

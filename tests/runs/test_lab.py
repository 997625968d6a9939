from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.runs.files import RunFolderError
from lsviz.runs.lab import Lab, LabError, VariantResult, load_lab, save_lab


def document() -> Lab:
    settings = {"optimizer": "sgd", "clip": 0.5, "master_weights": False, "steps": 3}
    result = VariantResult(
        name="clip before", group="clipping", shows="Too strict.", settings=settings, steps=3,
        weight_error=0.5, curve=[(0, 0.1)], counts=[1] * 49, moved=[0] * 49,
    )  # fmt: skip
    return Lab(
        created="2026-01-01T00:00:00+00:00", task="digits-mlp", policy="constant:8", seed=0, clip=0.5, l2=0.0,
        seconds=2.5, variants=[result],
    )  # fmt: skip


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    assert load_lab(path) is None
    save_lab(path, document())
    again = load_lab(path)
    assert again == document()
    assert again.variants[0].settings["master_weights"] is False
    assert "NaN" not in path.read_text()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"created": 1}', "\x00\xff", '{"variants": [{"weight_error": "x"}]}']
)
def test_what_is_no_result_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lab.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(LabError, match="holds no result") as caught:
        load_lab(path)
    assert "\n" not in str(caught.value)


def test_more_bins_than_there_are_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text(document().model_dump_json().replace('"counts":[1,', '"counts":[1,1,'))
    with pytest.raises(LabError, match="holds no result"):
        load_lab(path)


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="can't write"):
        save_lab(tmp_path / "nowhere" / "lab.json", document())

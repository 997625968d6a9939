from __future__ import annotations

from pathlib import Path

import pytest

from lsviz.runs.files import RunFolderError
from lsviz.runs.reproduction import Reproduction, ReproductionError, load_reproduction, save_reproduction
from tests.analysis.test_results import result


def document() -> Reproduction:
    rows = [result(seed=s, metric=None if s else 0.5, history=[(9, 0.4)]) for s in (0, 1)]
    return Reproduction(created="2026-01-01T00:00:00+00:00", quick=True, seconds=2.5, results=rows)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "reproduce.json"
    assert load_reproduction(path) is None
    save_reproduction(path, document())
    assert load_reproduction(path) == document()
    assert "NaN" not in path.read_text()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"created": 1}', "\x00\xff", '{"results": [{"metric": "x"}]}']
)
def test_what_is_no_result_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "reproduce.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ReproductionError, match="holds no result") as caught:
        load_reproduction(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="can't write"):
        save_reproduction(tmp_path / "nowhere" / "reproduce.json", document())

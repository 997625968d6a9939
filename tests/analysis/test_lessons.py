"""Lessons and glossary as data, the facts that they tell, and the small experiments behind them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from lsviz.analysis.demonstrations import accumulation_frame, half_sum_frame, half_sum_table
from lsviz.analysis.lessonfacts import flushed_length, layer_share, policy_facts, result_facts, run_facts
from lsviz.analysis.lessons import FOLDER, LessonError, fill, load_glossary, load_lessons, parse_lesson
from lsviz.policies import parse_policy, trace_overflows
from lsviz.runs.lab import load_lab
from lsviz.runs.reproduction import load_reproduction
from lsviz.runs.store import RunStore
from lsviz.ui.frame.main import PAGES
from lsviz.ui.keys import KEYS
from tests.conftest import REPOSITORY, SAMPLES

TEXT = (FOLDER / "01-overflow.md").read_text(encoding="utf-8")


def facts() -> dict[str, str]:
    results, lab = load_reproduction(SAMPLES / "reproduce.json"), load_lab(SAMPLES / "lab.json")
    assert results is not None
    assert lab is not None
    return policy_facts() | run_facts(RunStore.at(SAMPLES).list_runs()) | result_facts(results, lab)


def test_there_are_eleven_lessons_and_every_fact_in_them_is_known() -> None:
    lessons, known = load_lessons(), facts()
    assert len(lessons) == 11
    for lesson in lessons.values():
        assert lesson.facts <= set(known), lesson.slug
        assert lesson.title.endswith("?")


def test_every_file_of_the_folder_is_packaged() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["lsviz"]
    files = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert set(FOLDER.iterdir()) <= files


def test_links_of_lessons_lead_to_pages_and_keys_that_there_are() -> None:
    for lesson in load_lessons().values():
        for link in lesson.links:
            assert link.page in PAGES
            assert all(link.page in KEYS[key].pages for key in link.query), lesson.slug


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('slug = "overflow"', 'slug = "overflow"\ncolour = "red"', "x.md: colour: Extra inputs"),
        ('slug = "overflow"', "", "x.md: slug: Field required"),
        ("right = 1", "right = 3", "there is no option 3"),
        ("## Answer", "## Reply", "a line '## Answer'"),
        ("right = 1", "right =", "x.md: Invalid value"),
        ("https://arxiv", "javascript:arxiv", "x.md: sources.1.url"),
        ("+++", "---", "two lines of +++"),
    ],
)
def test_a_wrong_lesson_is_told_with_its_file_and_fault(old: str, new: str, told: str) -> None:
    with pytest.raises(LessonError) as caught:
        parse_lesson(TEXT.replace(old, new), "x.md")
    assert told in str(caught.value)


def test_two_lessons_of_one_slug_and_a_glossary_that_is_none_are_told(tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    with pytest.raises(LessonError, match=r"b\.md: another lesson"):
        load_lessons(tmp_path)
    (tmp_path / "glossary.toml").write_text("S = 1", encoding="utf-8")
    with pytest.raises(LessonError, match="meaning of 'S'"):
        load_glossary(tmp_path)


def test_the_glossary_has_the_words_of_the_pages() -> None:
    words = load_glossary()
    for word in (
        "binade",
        "headroom",
        "exponent",
        "structural zero",
        "master weights",
        "back-off",
        "flushed",
    ):
        assert words[word]


def test_an_unknown_fact_is_told() -> None:
    assert fill("S = {s}, {s} %", {"s": "8"}) == "S\u00a0=\u00a08, 8\u00a0%"
    with pytest.raises(LessonError, match="no fact is called 's'"):
        fill("S = {s}", {})


def test_facts_are_those_of_the_samples() -> None:
    known = facts()
    runs = RunStore.at(SAMPLES).list_runs()
    ssd = next(r for r in runs if (r.config.task, r.config.policy) == ("shapes-ssd", "gradscaler"))
    assert known["ssd_skipped"] == str(ssd.status.skipped_steps)
    steps = int(known["steps_to_zero"])
    assert trace_overflows(parse_policy("gradscaler"), "O" * steps).scales[-2:] == [2.0**-149, 0.0]
    partly = next(r for r in runs if r.config.policy == "none" and r.config.loss_weight == 2.0**-4)
    assert layer_share(partly, "layer1") > 0.5
    assert flushed_length(partly, "layer1") < 0.1  # most values, but hardly any of the length


@pytest.mark.parametrize(("power", "last"), [(-12, 1.0), (-11, 1.0), (-10, 1 + 1000 / 1024)])
def test_a_sum_in_fp16_stays_where_updates_are_half_a_digit(power: int, last: float) -> None:
    frame = half_sum_frame(power)
    assert frame["fp16"].iloc[-1] == last
    assert frame["fp32"].iloc[-1] == 1 + 1000 * 2.0**power
    assert half_sum_table(power)["value"].tolist()[1] == np.float16(1) + np.float16(2.0**power)


def test_micro_batches_before_s_doubled_count_half() -> None:
    frame = accumulation_frame(8, 5)
    assert frame["each"].tolist() == [0.5] * 5 + [1.0] * 3
    assert accumulation_frame(8, 8)["each"].tolist() == [1.0] * 8
    assert (frame["once"] == 1).all()

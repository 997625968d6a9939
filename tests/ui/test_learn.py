"""The Learn page: it asks before it answers."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from lsviz.analysis.lessonfacts import policy_facts, result_facts, run_facts
from lsviz.analysis.lessons import fill, load_lessons
from lsviz.runs.lab import load_lab
from lsviz.runs.reproduction import load_reproduction
from lsviz.runs.store import RunStore
from tests.conftest import SAMPLES
from tests.ui.opening import charts, open_page, words

LESSONS = load_lessons()


@pytest.fixture(scope="module")
def facts() -> dict[str, str]:
    results, lab = load_reproduction(SAMPLES / "reproduce.json"), load_lab(SAMPLES / "lab.json")
    assert results is not None
    assert lab is not None
    return policy_facts() | run_facts(RunStore.at(SAMPLES).list_runs()) | result_facts(results, lab)


def shown(app: AppTest) -> str:
    return words(app).replace("\\", "")


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize("slug", LESSONS)
def test_a_lesson_asks_before_it_answers(slug: str, facts: dict[str, str]) -> None:
    lesson = LESSONS[slug]
    app = open_page("learn", lesson=slug)
    assert lesson.title in shown(app)
    answer = fill(lesson.answer, facts)
    assert answer not in words(app)
    assert not any(fill(option.reply, facts) in words(app) for option in lesson.options)
    assert charts(app) == 0
    wrong = next(i for i in range(len(lesson.options)) if i != lesson.right)
    app.radio(key=f"learn_guess-{slug}").set_value(wrong).run()
    assert not app.exception, app.exception
    assert answer in words(app)
    assert f"**Not quite.** {fill(lesson.options[wrong].reply, facts)}" in words(app)
    assert charts(app) == 1
    app.radio(key=f"learn_guess-{slug}").set_value(lesson.right).run()
    assert f"**That is so.** {fill(lesson.options[lesson.right].reply, facts)}" in words(app)
    assert dict(app.query_params) == {"lesson": slug}  # a link gives no answer away


@pytest.mark.usefixtures("runs_root")
def test_who_does_not_guess_is_shown_too_and_goes_on() -> None:
    names = list(LESSONS)
    app = open_page("learn", lesson=names[0])
    assert f"0 of {len(names)} answered" in words(app)
    app.button(key=f"learn_show-{names[0]}").click().run()
    lesson = LESSONS[names[0]]
    assert f"**{lesson.options[lesson.right].words}**" in words(app)
    assert charts(app) == 1
    app.button(key="learn_next").click().run()
    assert LESSONS[names[1]].title in shown(app)
    assert f"1 of {len(names)} answered" in words(app)
    assert charts(app) == 0
    app.button(key=f"learn_contents-{names[0]}").click().run()
    assert charts(app) == 1  # what was answered stays so


@pytest.mark.usefixtures("runs_root")
def test_an_unknown_lesson_in_the_link_is_told() -> None:
    app = open_page("learn", lesson="../../etc")
    assert "a lesson that there is not" in words(app)
    assert next(iter(LESSONS.values())).title in shown(app)


@pytest.mark.usefixtures("runs_root", "no_samples")
def test_without_samples_a_lesson_that_tells_of_them_says_so() -> None:
    app = open_page("learn", lesson="overflow")
    assert "told from the shipped sample runs" in words(app)
    assert charts(app) == 0


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    ("slug", "slider", "value", "said"),
    [
        ("overflow", "learn_interval", 1, "has S = 2²⁸"),
        ("scheduler", "learn_first", 10, "0 updates are thrown away"),
        ("accumulation", "learn_doubles", 16, "both are right"),
        ("masters", "learn_update", -10, "1.977 in FP16"),
    ],
)
def test_an_experiment_changes_what_is_found(slug: str, slider: str, value: int, said: str) -> None:
    app = open_page("learn", lesson=slug)
    app.radio(key=f"learn_guess-{slug}").set_value(0).run()
    assert said not in words(app)
    app.slider(key=slider).set_value(value).run()
    assert not app.exception
    assert said in words(app)

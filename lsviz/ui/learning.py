"""Learn's parts: the list of lessons, the prediction, and the answer with its figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lsviz.analysis.lessonfacts import policy_facts, result_facts, run_facts
from lsviz.analysis.lessons import Lesson, fill
from lsviz.ui.demos import DEMOS
from lsviz.ui.demos.shipped import shipped_lab, shipped_results, shipped_runs
from lsviz.ui.links import link_page
from lsviz.ui.state import hidden, samples_root
from lsviz.ui.text import plain

UNTOLD: Final = -1
"""The answer of who asked to be shown at once."""


def choose_lesson(lessons: Mapping[str, Lesson]) -> str:
    """Return the lesson that the address asks for, the last one seen, or the first."""
    asked = st.query_params.get("lesson")
    if asked is not None and asked not in lessons:
        st.warning(plain(f"The link asks for a lesson that there is not: {asked[:80]!r}"))
    seen = st.session_state.get("learn.lesson")
    slug = next((name for name in (asked, seen) if name in lessons), next(iter(lessons)))
    st.session_state["learn.lesson"] = slug
    st.query_params["lesson"] = slug
    return slug


def known_facts() -> dict[str, str]:
    """Return the facts that lessons tell; without sample runs only those of the policies."""
    return _facts(str(samples_root()))


@st.cache_resource(show_spinner="Reading the sample runs")
def _facts(root: str) -> dict[str, str]:
    facts = policy_facts() | run_facts(shipped_runs())
    results, lab = shipped_results(), shipped_lab()
    return facts | result_facts(results, lab) if results is not None and lab is not None else facts


def lesson_columns() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Return the places of the list of lessons and of the lesson; without the list that has all the room."""
    if "lesson" in hidden():
        return st.container(), st.container()
    contents, page = st.columns([3, 9], gap="large")
    return contents, page


def show_contents(lessons: Mapping[str, Lesson], slug: str) -> None:
    """List the lessons, those marked whose prediction was made in this session."""
    with st.container(key="learn_contents", gap="xsmall"):
        done = sum(_answer_of(name) is not None for name in lessons)
        st.caption(f"{done} of {len(lessons)} answered")
        for number, (name, lesson) in enumerate(lessons.items(), start=1):
            title = plain(f"{number}  {lesson.title}")
            icon = "check_circle" if _answer_of(name) is not None else "radio_button_unchecked"
            st.button(
                f"**{title}**" if name == slug else title,
                key=f"learn_contents-{name}",
                icon=f":material/{icon}:",
                type="tertiary",
                on_click=_open,
                args=(name,),
            )


def show_question(lesson: Lesson, facts: Mapping[str, str], number: int, of: int) -> None:
    """Show the title and what one should know before the prediction."""
    st.caption(f"Lesson {number} of {of}")
    st.header(plain(lesson.title), anchor=False)
    if lesson.facts <= set(facts):
        st.markdown(fill(lesson.intro, facts))


def ask_prediction(lesson: Lesson, facts: Mapping[str, str]) -> int | None:
    """Ask for a prediction.

    Returns:
        The place of the chosen option, UNTOLD where none was wanted, None before either.
    """
    key = f"learn.answer.{lesson.slug}"
    # The widget is forgotten on other pages, what was chosen is not.
    before = _answer_of(lesson.slug)
    with st.container(border=True):
        chosen = st.radio(
            f"**Your prediction:** {fill(lesson.question, facts)}",
            range(len(lesson.options)),
            index=before if before is not None and before >= 0 else None,
            format_func=lambda place: lesson.options[place].words,
            key=f"learn_guess-{lesson.slug}",
        )
        if chosen is not None:
            st.session_state[key] = chosen
        elif before is None and st.button("Just show me", key=f"learn_show-{lesson.slug}", type="tertiary"):
            st.session_state[key] = UNTOLD
            st.rerun()
    return _answer_of(lesson.slug)


def show_answer(lesson: Lesson, facts: Mapping[str, str], answer: int) -> None:
    """Reply to the prediction, tell the answer, and draw the figure with its experiment."""
    right = lesson.options[lesson.right]
    if answer == lesson.right:
        st.success(f"**That is so.** {fill(right.reply, facts)}", icon=":material/check:")
    elif answer == UNTOLD:
        st.info(f"**{right.words}** {fill(right.reply, facts)}", icon=":material/lightbulb:")
    else:
        reply = fill(lesson.options[answer].reply, facts)
        st.info(f"**Not quite.** {reply}", icon=":material/lightbulb:")
    st.markdown(fill(lesson.answer, facts))
    st.subheader("Try it", anchor=False)
    st.markdown(fill(lesson.experiment, facts))
    DEMOS[lesson.figure]()
    st.markdown("**Go on**")
    with st.container(horizontal=True, gap="medium"):
        for link in lesson.links:
            link_page(link.page, link.label, link.query)
    sources = " · ".join(f"[{plain(source.title)}]({source.url})" for source in lesson.sources)
    st.caption(f"Read more: {sources}")


def show_neighbours(lessons: Mapping[str, Lesson], slug: str) -> None:
    """Offer the lesson before and the next."""
    names = list(lessons)
    place = names.index(slug)
    with st.container(key="learn_neighbours", horizontal=True, horizontal_alignment="distribute"):
        for step, word, icon in ((-1, "Previous", "arrow_back"), (1, "Next", "arrow_forward")):
            there = 0 <= place + step < len(names)
            st.button(
                word,
                key=f"learn_{word.lower()}",
                icon=f":material/{icon}:",
                icon_position="right" if step > 0 else "left",
                disabled=not there,
                on_click=_open,
                args=(names[place + step] if there else slug,),
                help=lessons[names[place + step]].title if there else None,
            )


def _open(slug: str) -> None:
    st.session_state["learn.lesson"] = slug
    st.query_params["lesson"] = slug


def _answer_of(slug: str) -> int | None:
    return st.session_state.get(f"learn.answer.{slug}")

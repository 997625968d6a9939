"""Learn: eleven questions, each with a prediction before its answer, and a figure to play with."""

import streamlit as st

from lsviz.analysis.lessons import load_lessons
from lsviz.ui.learning import (
    ask_prediction,
    choose_lesson,
    known_facts,
    lesson_columns,
    show_answer,
    show_contents,
    show_neighbours,
    show_question,
)

lessons = load_lessons()
slug = choose_lesson(lessons)
lesson = lessons[slug]
contents, page = lesson_columns()
with page:
    facts = known_facts()
    show_question(lesson, facts, list(lessons).index(slug) + 1, len(lessons))
    if lesson.facts <= set(facts):
        answer = ask_prediction(lesson, facts)
        if answer is not None:
            show_answer(lesson, facts, answer)
    else:
        st.info("It is told from the shipped sample runs, which are not here.", icon=":material/info:")
    show_neighbours(lessons, slug)
with contents:
    show_contents(lessons, slug)

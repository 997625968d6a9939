"""Lessons and glossary: teaching text read from files, checked, its numbers filled in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import lsviz
from lsviz.errors import UserError

FOLDER: Final = Path(lsviz.__file__).parent / "lessons"
GLOSSARY_FILE: Final = "glossary.toml"
ANSWER: Final = "## Answer"
"""The line between what is said before the prediction and what after it."""
_FENCE: Final = "+++"
_PLACE: Final = re.compile(r"\{(\w+)\}")


class LessonError(UserError):
    """A lesson or the glossary can't be read; the message names the file and the fault."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Option(_Data):
    """One prediction to choose, and what is said to who chose it."""

    words: str
    reply: str


class Link(_Data):
    """A way on: a page with settings, as its address holds them."""

    page: str
    label: str
    query: dict[str, str] = {}


class Source(_Data):
    """Where one can read it."""

    title: str
    url: str = Field(pattern="^https://")


class Lesson(_Data):
    """One question, in the order that a lesson is gone through.

    Text is Markdown; ``{name}`` stands for a fact (`lsviz.analysis.lessonfacts`).
    """

    slug: str = Field(pattern="^[a-z0-9-]+$")
    title: str
    intro: str = Field(min_length=1, description="Said before the prediction.")
    question: str = Field(description="What to predict.")
    options: list[Option] = Field(min_length=2, max_length=4)
    right: int = Field(ge=0, description="Place of the option that holds, from 0.")
    answer: str = Field(min_length=1)
    figure: str = Field(description="Name of the live figure.")
    experiment: str = Field(description="What to try on the figure.")
    links: list[Link] = Field(min_length=1)
    sources: list[Source] = Field(min_length=1)

    @property
    def facts(self) -> set[str]:
        """Names of the facts that its text asks for."""
        texts = [
            self.intro,
            self.question,
            self.answer,
            self.experiment,
            *(option.reply for option in self.options),
        ]
        return {name for text in texts for name in _PLACE.findall(text)}


def parse_lesson(text: str, name: str = "lesson") -> Lesson:
    """Read one lesson: TOML between two lines of ``+++``, Markdown, ``## Answer``, Markdown.

    Args:
        text: The file's content.
        name: The file's name, for errors.

    Raises:
        LessonError: A part or a key is missing, unknown or wrong.
    """
    parts = text.split(f"{_FENCE}\n", 2)
    if len(parts) < 3 or parts[0].strip():
        raise LessonError(f"{name}: it should begin with settings between two lines of {_FENCE}")
    intro, found, answer = parts[2].partition(f"\n{ANSWER}\n")
    if not found:
        raise LessonError(f"{name}: a line '{ANSWER}' should follow what comes before the prediction")
    try:
        settings = tomllib.loads(parts[1])
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{name}: {error}") from None
    try:
        lesson = Lesson.model_validate({**settings, "intro": intro.strip(), "answer": answer.strip()})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LessonError(f"{name}: {where}: {first['msg']}") from None
    if lesson.right >= len(lesson.options):
        raise LessonError(f"{name}: right: there is no option {lesson.right}")
    return lesson


@cache
def load_lessons(folder: Path = FOLDER) -> dict[str, Lesson]:
    """Return all lessons by slug, in the order of their files' names.

    Raises:
        LessonError: One can't be read, or two have one slug.
    """
    lessons: dict[str, Lesson] = {}
    for file in sorted(folder.glob("*.md")):
        lesson = parse_lesson(file.read_text(encoding="utf-8"), file.name)
        if lesson.slug in lessons:
            raise LessonError(f"{file.name}: another lesson has the slug {lesson.slug!r}")
        lessons[lesson.slug] = lesson
    return lessons


@cache
def load_glossary(folder: Path = FOLDER) -> dict[str, str]:
    """Return word -> meaning, in the order of the file.

    Raises:
        LessonError: The file is no such table.
    """
    try:
        words = tomllib.loads((folder / GLOSSARY_FILE).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{GLOSSARY_FILE}: {error}") from None
    wrong = [word for word, meaning in words.items() if not isinstance(meaning, str)]
    if wrong:
        raise LessonError(f"{GLOSSARY_FILE}: the meaning of {wrong[0]!r} should be a text")
    return words


def fill(text: str, facts: Mapping[str, str]) -> str:
    """Put facts in the place of their names, and keep numbers and their units in one line.

    Raises:
        LessonError: One is not known.
    """

    def fact(match: re.Match[str]) -> str:
        if match[1] not in facts:
            raise LessonError(f"no fact is called {match[1]!r}")
        return facts[match[1]]

    return _PLACE.sub(fact, text).replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0")

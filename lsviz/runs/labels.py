"""What a person says about a run: a name, tags, whether it is pinned as its task's baseline.

They lie in a small file of the run's folder, apart from what the run itself wrote.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lsviz.errors import UserError

LABELS: Final = "labels.json"
MAX_NAME: Final = 80
MAX_TAGS: Final = 12
MAX_TAG: Final = 24

# Controls, lone surrogates, and marks that turn the direction of what stands after them.
_UNSHOWABLE: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class LabelError(UserError):
    """A run can't be called that; the message says what would be right."""


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _showable(text: str) -> str:
    if any(c in _UNSHOWABLE or unicodedata.category(c) in ("Cc", "Cs") for c in text):
        raise ValueError("it holds characters that can't be shown")
    return text


def _each_once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


_Text = Annotated[str, BeforeValidator(_one_line), AfterValidator(_showable)]
Tag = Annotated[_Text, Field(min_length=1, max_length=MAX_TAG)]


class Labels(BaseModel):
    """The content of labels.json; a run without that file has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[_Text, Field(max_length=MAX_NAME)] = ""
    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS), AfterValidator(_each_once)] = ()
    pinned: bool = False

    @classmethod
    def build(cls, **values: Any) -> Labels:
        """Return the labels of these values.

        Raises:
            LabelError: One line saying which is wrong and what would be right.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise LabelError(_reason(first)) from None


def _reason(error: Any) -> str:
    field = "name" if error["loc"][:1] == ("name",) else "tags"
    if error["type"] in ("string_too_long", "too_long") and isinstance(error["input"], str):
        given = len(" ".join(str(error["input"]).split()))
        return f"{field}: at most {error['ctx']['max_length']} characters each, got {given}"
    if error["type"] == "too_long":
        return f"tags: at most {MAX_TAGS} of them"
    return f"{field}: {error['msg'].removeprefix('Value error, ')}"

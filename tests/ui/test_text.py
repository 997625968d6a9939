from __future__ import annotations

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from lsviz.ui.text import plain, plain_frame


@pytest.mark.parametrize(
    "text",
    [
        "[x](http://evil)",
        "![x](http://evil/i.png)",
        "<img src=x onerror=alert(1)>",
        "`code` **bold** _it_ ~~no~~",
        "# head",
        "1. one",
        "- item",
        "&lt;b&gt;",
        "a|b",
        "https://evil.example",
        "\\[x](y)",
        "__bold__ snake_case _it_",
        "www.evil.example",
        "me@evil.example",
    ],
)
def test_markup_comes_out_as_it_went_in(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(plain(text))
    assert html.startswith("<p>")
    html = html.strip().removeprefix("<p>").removesuffix("</p>")
    shown = (
        html.replace("\u2060", "")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", '"')
        .replace("&amp;", "&")
    )
    assert shown == text


def test_streamlits_own_directives_are_broken() -> None:
    assert plain(":red[x]") == r"\:red\[x\]"
    assert plain(":material/home:!") == "\\:\u2060material/home\\:!"
    assert plain(":smile: a:b") == "\\:\u2060smile: a\\:b"
    assert plain("$x$ https://evil.example") == "\\$x\\$ https\\:\u2060//evil.example"
    assert plain("www.evil.example me@evil.example") == "www\u2060.evil.example me@\u2060evil.example"


def test_what_turns_or_commands_is_left_out() -> None:
    assert plain("a\u202egnp.exe\u2066\x1b[31m\x07\ud800b") == r"agnp.exe\[31mb"
    frame = pd.DataFrame(
        {"a\u202e": ["x\u202ey", "=1"], "n": [1.5, 2.5], "t": [["\x1bq"], []]}, index=["\u200ei", "j"]
    )
    shown = plain_frame(frame)
    assert shown.columns.tolist() == ["a", "n", "t"]
    assert shown.index.tolist() == ["i", "j"]
    assert shown["a"].tolist() == ["xy", "=1"]
    assert shown["t"].tolist() == [["q"], []]
    assert frame["a\u202e"].tolist() == ["x\u202ey", "=1"]


def test_ordinary_messages_stay_as_they_are() -> None:
    for text in ("run.json is broken", "gradscaler: init_scale should be > 0 (got -1)", "S = 1,024, 99.8 %"):
        assert plain(text) == text


def test_one_line_and_hard_spaces_stay() -> None:
    assert plain("a\n\n b\u00a0c") == "a b\u00a0c"

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from lsviz.ui.text import plain


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
    ],
)
def test_markup_comes_out_as_it_went_in(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(plain(text))
    assert html.startswith("<p>")
    html = html.strip().removeprefix("<p>").removesuffix("</p>")
    shown = html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert shown == text


def test_streamlits_own_directives_are_broken() -> None:
    assert plain(":red[x]") == r"\:red\[x\]"
    assert plain(":material/home:!") == r"\:material/home\:!"
    assert plain("$x$ https://evil.example") == r"\$x\$ https\://evil.example"


def test_ordinary_messages_stay_as_they_are() -> None:
    for text in ("run.json is broken", "gradscaler: init_scale should be > 0 (got -1)", "S = 1,024, 99.8 %"):
        assert plain(text) == text


def test_one_line_and_hard_spaces_stay() -> None:
    assert plain("a\n\n b\u00a0c") == "a b\u00a0c"

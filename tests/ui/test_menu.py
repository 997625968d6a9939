"""The menu on every page: sharing a view, and leaving controls out for a class."""

from __future__ import annotations

import pytest

from tests.ui.opening import open_page

pytestmark = pytest.mark.usefixtures("runs_root")


def test_a_link_that_hides_is_made_without_hiding_anything_here() -> None:
    app = open_page("learn", lesson="overflow")
    app.multiselect(key="hidden-learn").set_value(["lesson", "menu"]).run()
    (link,) = (code.value for code in app.code if "hide=" in code.value)
    assert link.endswith("?lesson=overflow&hide=lesson,menu")
    assert "hide" not in app.query_params
    assert "Next" in [button.label for button in app.button]


def test_what_a_link_hid_can_be_shown_again() -> None:
    app = open_page("learn", lesson="overflow", hide="lesson")
    assert any("learn_neighbours" in style for style in (h.proto.body for h in app.get("html")))
    app.button(key="show_all").click()
    app.run()
    assert not app.exception
    assert not any("learn_neighbours" in style for style in (h.proto.body for h in app.get("html")))
    assert "hide" not in app.query_params

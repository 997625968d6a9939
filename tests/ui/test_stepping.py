"""Choosing a recorded step."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from lsviz.ui.stepping import nearest_step


@pytest.mark.parametrize(
    ("step", "nearest"), [(-5, 0), (0, 0), (14, 10), (15, 10), (16, 20), (25, 20), (500, 30)]
)
def test_the_nearest_recorded_step_is_found(step: int, nearest: int) -> None:
    assert nearest_step([0, 10, 20, 30], step) == nearest


def _page() -> None:
    import streamlit as st

    from lsviz.ui.stepping import choose_step

    st.text(choose_step([*range(0, 6000, 3), 7001], 7001))


def test_a_slider_over_thousands_of_steps_is_told_their_range_alone() -> None:
    app = AppTest.from_function(_page).run()
    assert not app.select_slider
    slider = app.slider(key="step")
    assert (slider.min, slider.max, slider.value) == (0, 7001, 279)
    assert slider.proto.step == 1
    slider.set_value(6900).run()
    assert app.text[0].value == "7001", "only a recorded step is shown"
    app.button(key="step_back").click().run()
    assert app.text[0].value == "5997"
    assert app.slider(key="step").value == 5997


@pytest.mark.parametrize("asked", ["nothing", "-3", "9" * 40, "²"])
def test_a_step_in_the_address_may_be_anything(asked: str) -> None:
    app = AppTest.from_function(_page)
    app.query_params["step"] = asked
    app.run()
    assert not app.exception
    assert app.text[0].value == "279"

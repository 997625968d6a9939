"""The Policies page, and the form of a policy that it shares with Launch."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from lsviz.policies import POLICIES, format_policy
from tests.ui.opening import charts, open_page, words


def chosen_policies(app: AppTest) -> Any:
    return next(field for field in app.multiselect if field.key.startswith("traced."))


@pytest.mark.usefixtures("runs_root")
def test_a_policy_that_is_not_in_a_link_is_told_and_the_form_stands() -> None:
    app = open_page("launch", policy="constant:many")
    assert "constant: scale takes a number" in app.warning[0].value
    assert app.selectbox(key="policy.name").value == "constant"


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize("name", POLICIES)
def test_the_form_of_every_policy_is_made_from_its_model(name: str) -> None:
    app = open_page("launch", policy=name)
    assert app.selectbox(key="policy.name").value == name
    assert app.code[0].value == format_policy(POLICIES[name]())
    drawn = {
        element.key.rsplit(".", 1)[-1]
        for kind in ("text_input", "number_input", "toggle", "selectbox")
        for element in getattr(app, kind)
        if element.key and element.key.startswith(f"policy.{name}.")
    }
    assert drawn == set(POLICIES[name].settings())


@pytest.mark.usefixtures("runs_root")
def test_the_form_takes_its_settings_from_the_link_and_gives_them_back() -> None:
    text = "deepspeed:init_scale=2^10,hysteresis=3,raise_at_min_scale=false"
    app = open_page("launch", policy=text)
    assert app.code[0].value == text.replace("2^10", "1024")
    assert app.number_input(key="policy.deepspeed.hysteresis").value == 3
    app.toggle(key="policy.deepspeed.raise_at_min_scale").set_value(True).run()
    assert app.code[0].value == "deepspeed:init_scale=1024,hysteresis=3"
    assert app.query_params["policy"] in (app.code[0].value, [app.code[0].value])
    app.text_input(key="policy.deepspeed.min_scale").set_value("2^20").run()
    assert "init_scale should be at least its floor" in words(app)
    app.selectbox(key="policy.name").set_value("logmax").run()
    app.selectbox(key="policy.logmax.inf_rule").set_value("published").run()
    assert app.code[0].value == "logmax:inf_rule=published"


@pytest.mark.usefixtures("runs_root")
def test_policies_traces_a_pattern_that_is_typed_clicked_or_chosen() -> None:
    app = open_page("policies")
    assert "megatron has S = 1,024, gradscaler 128: 8 times apart" in app.header[0].value
    assert charts(app) == 1
    app.text_input(key="pattern").set_value("OOOO").run()
    assert "After 4 steps megatron has S = 32, gradscaler 16: 2 times apart" in app.header[0].value
    clicked = next(g for g in app.get("button_group") if g.key == "traced.clicked")
    assert clicked.value == [0, 1, 2, 3]
    clicked.set_value([0]).run()
    assert app.text_input(key="pattern").value == "O..."
    examples = next(g for g in app.get("button_group") if g.key == "traced.example")
    examples.set_value("all clean").run()
    assert app.text_input(key="pattern").value == "." * 24


@pytest.mark.usefixtures("runs_root")
def test_policies_by_the_largest_gradient_and_with_their_own_defaults() -> None:
    app = open_page(
        "policies", driven_by="largest gradients", amax="2^-10, 2^-10", policies="patent;histogram"
    )
    assert chosen_policies(app).value == ["patent", "histogram"]
    assert "patent has S = 2²⁵" in app.header[0].value
    app.toggle(key="same_start").set_value(False).run()
    assert "histogram 4" in app.header[0].value
    counters = app.table[0].value
    assert list(counters["outcome"]) == ["clean", "clean"]


@pytest.mark.usefixtures("runs_root")
def test_each_driver_keeps_policies_of_its_own() -> None:
    app = open_page("policies")
    drivers = next(g for g in app.get("button_group") if g.key == "driven_by")
    chosen_policies(app).set_value(["tf", "dynamic", "gradscaler", "constant:scale=1024", "nonsense"]).run()
    assert "unknown policy 'nonsense'" in words(app)
    assert app.query_params["policies"] in ("tf;gradscaler;constant:1024", ["tf;gradscaler;constant:1024"])
    drivers.set_value("largest gradients").run()
    assert chosen_policies(app).value == ["gradscaler", "patent", "logmax", "histogram"]
    next(g for g in app.get("button_group") if g.key == "driven_by").set_value("overflows").run()
    assert chosen_policies(app).value == ["tf", "gradscaler", "constant:1024"]
    app.switch_page("lsviz/ui/pages/launch.py")
    app.run()
    app.switch_page("lsviz/ui/pages/policies.py")
    app.query_params.clear()
    app.run()
    assert not app.exception
    assert chosen_policies(app).value == ["tf", "gradscaler", "constant:1024"]


@pytest.mark.usefixtures("runs_root")
def test_policies_shows_counters_and_warns_where_torch_would_corrupt() -> None:
    app = open_page("policies", policies="gradscaler:init_scale=2^-125", pattern="OOO.", same_start="false")
    assert list(app.table[0].value["clean steps"]) == ["0", "0", "0", "1"]
    assert "1/S is infinite: the real scaler would write Inf" in app.warning[0].value


@pytest.mark.usefixtures("runs_root")
def test_policies_adds_one_from_the_form() -> None:
    app = open_page("policies")
    app.selectbox(key="traced.form.name").set_value("paddle").run()
    app.number_input(key="traced.form.paddle.decr_every_n").set_value(2).run()
    next(button for button in app.button if button.label == "Add").click().run()
    assert chosen_policies(app).value[-1] == "paddle:decr_every_n=2"
    assert not app.exception
    app.text_input(key="traced.form.paddle.init_scale").set_value("1024,growth_factor=4").run()
    assert "init_scale takes a number such as 1024" in words(app)
    assert next(button for button in app.button if button.label == "Add").disabled


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"pattern": "OX."}, "only O (overflow) and . (clean), got 'X' at position 1"),
        ({"pattern": ""}, "Give at least one step."),
        ({"policies": "foo;tf"}, "unknown policy 'foo'"),
        ({"policies": "foo"}, "unknown policy 'foo'"),
        ({"driven_by": "largest gradients", "amax": "1 x"}, "largest gradients are numbers such as 0.5"),
        ({"driven_by": "nothing"}, "times apart"),
        ({"pattern": "." * 2500}, "S = Inf"),
    ],
)
def test_policies_survives_a_strange_url(query: dict[str, str], told: str) -> None:
    assert told in words(open_page("policies", **query)).replace("\\", "")


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    ("policy", "key", "told"),
    [
        ("gradscaler", "init_scale", "From 2⁻¹²⁶ to 2¹²⁶, as 1024 or 2¹⁰. Default: 65536."),
        ("layerwise", "init_scale", "From 2⁻⁶⁰ to 2⁶⁰"),
        ("apex", "min_scale", "Floor of S. From 2⁻¹²⁶ to 2¹²⁶, as 1024 or 2¹⁰. Empty: no such bound."),
        ("openseq2seq", "init_scale", "Empty: the ceiling. From 2⁻¹²⁶"),
        ("fairseq", "tolerance", "At least 0, at most 1. Default: 0."),
    ],
)
def test_a_settings_help_tells_its_range_and_default(policy: str, key: str, told: str) -> None:
    app = open_page("launch", policy=policy)
    assert told in app.text_input(key=f"policy.{policy}.{key}").help

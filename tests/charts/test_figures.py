from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lsviz.analysis.findings import run_shares
from lsviz.charts.exponents import Facet, exponent_figure, run_facet
from lsviz.charts.regions import LEFT
from lsviz.charts.theme import PALETTES, Mode, literal, policy_colour
from lsviz.charts.timelines import Timeline, timeline_figure
from lsviz.formats import FP16, Region
from lsviz.policies import POLICIES
from lsviz.runs.injection import parse_injections
from lsviz.runs.reader import Run
from tests.conftest import train_run

LAYERS = [f"layer{i}" for i in range(1, 7)] + ["output"]
HOSTILE = '<img src=x onerror=alert(1)> $\\href{javascript:alert(1)}{x}$ <a href="x">\u202e'


def facet_of(run: Run, mode: Mode = "light", label: str = "run") -> Facet:
    exponents = run.exponents()
    shares = run_shares(run.config, exponents, 40, LAYERS)
    return run_facet(label, run.record, exponents, 40, LAYERS, shares, 0.9, mode)


@pytest.fixture(scope="module")
def figure(unscaled_run: Run, scaled_run: Run) -> go.Figure:
    facets = [facet_of(unscaled_run, label="left"), facet_of(scaled_run, label="right")]
    return exponent_figure(facets, LAYERS, "light")


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in figure.layout.annotations]


def test_bars_stand_where_the_counts_are(figure: go.Figure, unscaled_run: Run) -> None:
    lost, kept, _ = figure.data[:3]
    exponents = unscaled_run.exponents(tensor="layer1", steps=[40])
    row = exponents[~exponents["reference"]].iloc[0]
    drawn = {x - 0.5 for x, base in zip(kept.x, kept.base, strict=True) if base == 0}
    assert drawn == {int(i) - 80 for i in np.flatnonzero(row["counts"])}
    pale = {x - 0.5 for x, base in zip(lost.x, lost.base, strict=True) if base == 0}
    assert pale
    assert max(pale) < -25, "what lies in [2^-25, 2^-24) rounds up and is not flushed"


def test_colours_are_those_of_the_regions(figure: go.Figure) -> None:
    palette = PALETTES["light"]
    for kept in (figure.data[1], figure.data[4]):
        for x, colour in zip(kept.x, kept.marker.color, strict=True):
            assert colour == palette.regions[FP16.region_of(int(x - 0.5))]


def test_scaling_moves_everything_ten_binades_to_the_right(figure: go.Figure) -> None:
    left, right = figure.data[2], figure.data[5]  # the outlines: all that FP32 has

    def top_of_output(trace: go.Scatter) -> float:
        places = [
            (y, x) for x, y in zip(trace.x, trace.y, strict=True) if y is not None and y > len(LAYERS) - 1
        ]
        return max(places)[1]

    assert top_of_output(right) - top_of_output(left) == 10


def test_titles_regions_and_shares_are_written(figure: go.Figure) -> None:
    written = texts(figure)
    assert "<b>left</b>" in written
    assert "S = 1,024" in written
    assert "ends at 90 % accuracy" in written
    assert "<b>100 %</b> flushed" in written
    for word in ("flushed to 0", "subnormal", "normal", "Inf"):
        assert written.count(word) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_to_four_facets_share_one_axis(count: int, scaled_run: Run) -> None:
    figure = exponent_figure([facet_of(scaled_run)] * count, LAYERS, "dark")
    axes = [figure.layout[f"xaxis{i + 1 if i else ''}"] for i in range(count)]
    assert len({tuple(axis.range) for axis in axes}) == 1
    domains = [axis.domain for axis in axes]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(domains))
    assert len(figure.layout.shapes) == 4 * count
    assert domains[-1][1] == pytest.approx(1.0)


def test_an_fp32_run_is_neutral_and_flushes_nothing(scaled_run: Run) -> None:
    record = scaled_run.record.model_copy(
        update={"config": scaled_run.config.model_copy(update={"precision": "fp32"})}
    )
    exponents = scaled_run.exponents()
    shares = run_shares(record.config, exponents, 40, LAYERS)
    facet = run_facet("FP32", record, exponents, 40, LAYERS, shares, None, "light")
    figure = exponent_figure([facet], LAYERS, "light")
    assert set(figure.data[1].marker.color) == {PALETTES["light"].neutral}
    assert "<b>0 %</b>" in texts(figure)


def test_an_overflow_is_told_in_large_type_and_draws_nothing_as_flushed(tmp_path: Path) -> None:
    run = train_run(
        tmp_path, task="sigmoid-mlp", policy="constant:2^40", steps=1, record_every=1, reference_every=1
    )
    exponents = run.exponents()
    shares = run_shares(run.config, exponents, 0, LAYERS)
    facet = run_facet("huge", run.record, exponents, 0, LAYERS, shares, None, "light")
    figure = exponent_figure([facet], LAYERS, "light")
    assert "<b>Inf</b>" in texts(figure)
    assert any(text.endswith("Inf or NaN") for text in texts(figure))
    assert len(figure.data[0].x) == 0


def test_values_left_of_the_axis_are_drawn_in_its_first_bin() -> None:
    spectrum = pd.DataFrame(
        [("a", e, Region.FLUSHED, 0.25, 0.0) for e in (-70, -60, -50, LEFT)],
        columns=["tensor", "exponent", "region", "reference", "kept"],
    )
    facet = Facet("t", "s", "", "#000", spectrum, {"a": 1.0}, 1.0)
    (lost, _, _) = exponent_figure([facet], ["a"], "light").data
    assert list(lost.x) == [LEFT + 0.5]
    assert "100 %" in lost.customdata[0]


def test_many_layers_and_none_still_draw() -> None:
    empty = pd.DataFrame(columns=["tensor", "exponent", "region", "reference", "kept"])
    facet = Facet("t", "s", "", "#000", empty, {}, None)
    many = exponent_figure([facet], [f"transformer.h.{i}.attn.c_proj" for i in range(80)], "light")
    assert many.layout.height < 2600
    assert exponent_figure([facet], [], "light").layout.height > 0


def test_hostile_names_are_shown_literally(scaled_run: Run) -> None:
    exponents = scaled_run.exponents()
    exponents["tensor"] = exponents["tensor"].replace("layer1", HOSTILE)
    layers = [HOSTILE, *LAYERS[1:]]
    shares = run_shares(scaled_run.config, exponents, 40, layers)
    facet = run_facet(HOSTILE, scaled_run.record, exponents, 40, layers, shares, 0.9, "light")
    text = json.dumps(json.loads(exponent_figure([facet], layers, "light").to_json()))
    assert "<img" not in text
    assert "<a href" not in text
    assert "$" not in text
    assert "\\u202e" not in text


def test_literal_drops_what_could_act() -> None:
    assert literal("a<b>&$x\u202e\x00") == "a&lt;b&gt;&amp;&#36;x"


def timeline(run: Run, label: str = "run") -> Timeline:
    flushed = pd.DataFrame({"step": [0, 10], "flushed": [0.1, 0.9]})
    return Timeline(label, "#123456", run.steps(), flushed)


def test_a_fault_is_marked_in_the_timelines_once_and_named_on_hover(scaled_run: Run) -> None:
    faults = parse_injections("20:layer3:inf,20:<b>:huge,30:layer1:nan")
    one, two = (replace(timeline(scaled_run, label), faults=faults) for label in ("a", "b"))
    figure = timeline_figure([one, two], 41, "light")
    (marks,) = [t for t in figure.data if t.marker.symbol == "triangle-down"]
    assert list(marks.x) == [20, 30]
    assert list(marks.customdata) == ["huge in &lt;b&gt;, inf in layer3", "nan in layer1"]
    titles = [note.text for note in figure.layout.annotations]
    assert any("▼ an injected fault" in title for title in titles)
    without = timeline_figure([timeline(scaled_run)], 41, "light")
    assert not any(t.marker.symbol == "triangle-down" for t in without.data)
    assert not any("fault" in note.text for note in without.layout.annotations)


def test_timelines_show_loss_scale_skips_and_flushed(scaled_run: Run) -> None:
    steps = scaled_run.steps()
    steps.loc[steps["step"] == 7, "skipped"] = True
    line = Timeline("run", "#123456", steps, pd.DataFrame({"step": [0, 10], "flushed": [0.1, 0.9]}))
    figure = timeline_figure([line], 1000, "light")
    loss, scale, skips, flushed = figure.data
    np.testing.assert_allclose(np.asarray(loss.y, dtype=float), steps["loss"])
    assert set(scale.y) == {1024.0}
    assert list(skips.x) == [7]
    assert list(flushed.y) == [0.1, 0.9]
    assert {t.line.color for t in (loss, scale, flushed)} == {"#123456"}
    assert tuple(figure.layout.xaxis.range) == (0, 999)


def test_end_labels_do_not_meet(scaled_run: Run) -> None:
    lines = [timeline(scaled_run, label) for label in ("a", "b", "c", "d")]
    figure = timeline_figure(lines, 41, "light")
    heights = sorted(a.y for a in figure.layout.annotations if a.yref == "y")
    top = scaled_run.steps()["loss"].max()
    assert len(heights) == 4
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 0.1 * top


def test_diverged_and_empty_runs_still_draw(scaled_run: Run) -> None:
    steps = scaled_run.steps()
    steps["loss"] = np.nan
    nothing = steps.iloc[:0]
    flushed = pd.DataFrame({"step": [], "flushed": []})
    lines = [Timeline("nan", "#000", steps, flushed), Timeline("none", "#000", nothing, flushed)]
    assert timeline_figure(lines, 10, "dark").data
    assert timeline_figure([Timeline("none", "#000", nothing, flushed)], 10, "dark").data


def test_long_runs_are_thinned_and_keep_their_end() -> None:
    n = 50_000
    steps = pd.DataFrame({"step": range(n), "loss": 1.0, "loss_scale": 1.0, "skipped": False})
    line = Timeline("x", "#000", steps, pd.DataFrame({"step": [], "flushed": []}))
    loss = timeline_figure([line], n, "light").data[0]
    assert len(loss.x) <= 2000
    assert loss.x[-1] == n - 1


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_policies_have_colours_of_their_own_apart_from_the_regions(mode: Mode) -> None:
    palette = PALETTES[mode]
    colours = list(palette.policies.values())
    assert len(set(colours)) == len(colours)
    assert set(palette.policies) <= set(POLICIES)
    assert policy_colour("a-new-one", "fp16", mode) in palette.others
    assert not set(colours) & set(palette.regions.values())
    assert {policy_colour(name, "fp32", mode) for name in POLICIES} == {palette.neutral}
    assert policy_colour("constant:8", "fp16", mode) == policy_colour("constant:1024", "bf16", mode)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_have_the_contrast_that_wcag_aa_asks_for(mode: Mode) -> None:
    palette = PALETTES[mode]
    words = [palette.text, palette.muted, palette.neutral, *palette.region_text.values()]
    words += [*palette.policies.values(), *palette.others]
    paper = luminance(palette.paper)
    for colour in words:
        light, dark = sorted((luminance(colour), paper), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour

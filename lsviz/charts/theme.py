"""Colours, fonts and text of every figure: one colour a meaning, in light and dark.

Region colours run from lost (vermilion) over at risk (amber) to safe (blue); policy colours keep clear
of those hues, so that no colour means two things. Hues from Okabe and Ito's colour-blind-safe set,
lightened for dark backgrounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from lsviz.formats import Region
from lsviz.runs.showing import showable

Mode = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one mode.

    Attributes:
        text: Titles and numbers.
        muted: Captions, ticks, outlines.
        grid: Lines behind data.
        paper: Background of the page.
        regions: Bars, by region.
        region_text: Words in a region's hue, dark (or light) enough to read.
        bands: Background of each region, translucent.
        neutral: FP32, which has no loss to scale away.
        policies: By policy name.
        heat: Ends of the scale of a heat map, few values to many.
        others: For policies without a colour of their own, by turns.
    """

    text: str
    muted: str
    grid: str
    paper: str
    regions: dict[Region, str]
    region_text: dict[Region, str]
    bands: dict[Region, str]
    neutral: str
    policies: dict[str, str]
    heat: tuple[str, str]
    others: tuple[str, ...]


_POLICY_COLOURS: Final[dict[str, tuple[str, str]]] = {
    "none": ("#b0357f", "#f28cc8"),
    "constant": ("#00795a", "#3fd0a4"),
    "gradscaler": ("#5b46b2", "#a99af5"),
    "megatron": ("#284700", "#c2fd91"),
    "deepspeed": ("#79720e", "#a69c13"),
    "patent": ("#525b2b", "#b9c491"),
    "layerwise": ("#034649", "#a1fafe"),
    "apex": ("#935e62", "#bf878b"),
    "histogram": ("#0c606d", "#21d4f0"),
    "fairseq": ("#754455", "#e4abbd"),
    "logmax": ("#8f4ab4", "#b77adb"),
    "keras": ("#bc3650", "#e56c7c"),
    "jmp": ("#742e97", "#dca2ff"),
    "paddle": ("#048634", "#4bb160"),
    "flax": ("#137c8d", "#17aac1"),
    "metaseq": ("#5b4c76", "#c4b4e5"),
    "tf": ("#65036a", "#fedbfe"),
    "mindspore": ("#016826", "#73d885"),
    "colossalai": ("#6d58ca", "#9587ef"),
    "openseq2seq": ("#5f774c", "#88a275"),
    "mxnet": ("#7c638c", "#a78cb8"),
    "mindformers": ("#2a624b", "#93cdb3"),
    "deepspeed2025": ("#9d1137", "#ff9ea7"),
    "deepspeed-fused": ("#433f09", "#eeebb5"),
    "apex-fp16utils": ("#3a7c72", "#65a79b"),
    "apex-contrib": ("#750526", "#ffdfe1"),
}
"""Every policy's colour in light and dark.

Of one hue each, as far from each other and from the regions' colours as text of contrast AA allows;
where many meet in one figure, lines carry their names and dashes too."""


PALETTES: Final[dict[Mode, Palette]] = {
    "light": Palette(
        text="#1f2a44",
        muted="#5c6474",
        grid="#e3e6ec",
        paper="#ffffff",
        regions={
            Region.FLUSHED: "#c44e00",
            Region.SUBNORMAL: "#e39a00",
            Region.NORMAL: "#1f77b4",
            Region.OVERFLOW: "#8a2f00",
        },
        region_text={
            Region.FLUSHED: "#b34700",
            Region.SUBNORMAL: "#8a5d00",
            Region.NORMAL: "#1a6699",
            Region.OVERFLOW: "#8a2f00",
        },
        bands={
            Region.FLUSHED: "rgba(196,78,0,0.05)",
            Region.SUBNORMAL: "rgba(227,154,0,0.09)",
            Region.NORMAL: "rgba(31,119,180,0.08)",
            Region.OVERFLOW: "rgba(138,47,0,0.14)",
        },
        neutral="#66707f",
        heat=("#eef1f6", "#1f2a44"),
        policies={name: light for name, (light, _) in _POLICY_COLOURS.items()},
        others=("#0b7a86", "#7a5230", "#6b7a00"),
    ),
    "dark": Palette(
        text="#eef1f7",
        muted="#a9b1c0",
        grid="#333a47",
        paper="#0e1117",
        regions={
            Region.FLUSHED: "#ff8a4c",
            Region.SUBNORMAL: "#f2b632",
            Region.NORMAL: "#5aaee8",
            Region.OVERFLOW: "#ff6a3d",
        },
        region_text={
            Region.FLUSHED: "#ff9a66",
            Region.SUBNORMAL: "#f2b632",
            Region.NORMAL: "#7cc0f0",
            Region.OVERFLOW: "#ff8a66",
        },
        bands={
            Region.FLUSHED: "rgba(255,138,76,0.06)",
            Region.SUBNORMAL: "rgba(242,182,50,0.10)",
            Region.NORMAL: "rgba(90,174,232,0.10)",
            Region.OVERFLOW: "rgba(255,106,61,0.18)",
        },
        neutral="#9aa4b5",
        heat=("#171c26", "#eef1f7"),
        policies={name: dark for name, (_, dark) in _POLICY_COLOURS.items()},
        others=("#4fc3d0", "#c79a73", "#c0cc4d"),
    ),
}

REGION_LABELS: Final = {
    Region.FLUSHED: "flushed to 0",
    Region.SUBNORMAL: "subnormal",
    Region.NORMAL: "normal",
    Region.OVERFLOW: "Inf",
}

SHORT_REGION_LABELS: Final = {
    Region.FLUSHED: "flushed",
    Region.SUBNORMAL: "subn.",
    Region.NORMAL: "normal",
    Region.OVERFLOW: "∞",
}
"""For facets too narrow for the full words."""

FONT: Final = "Source Sans, Source Sans Pro, Helvetica, Arial, sans-serif"


def policy_colour(policy: str, precision: str, mode: Mode) -> str:
    """Return the one colour of a policy; FP32 runs are neutral whatever their policy.

    Args:
        policy: Its string form; only the name counts.
        precision: The run's precision.
        mode: ``light`` or ``dark``.
    """
    palette = PALETTES[mode]
    if precision == "fp32":
        return palette.neutral
    name = policy.partition(":")[0]
    if name in palette.policies:
        return palette.policies[name]
    return palette.others[sum(name.encode()) % len(palette.others)]


def faded(colour: str, opacity: float) -> str:
    """Return a colour such as ``#1f2a44`` with an opacity from 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def literal(text: str) -> str:
    """Return text that Plotly shows as it stands: its HTML and MathJax mean nothing.

    Control and direction-changing characters are dropped.
    """
    clean = re.sub(r"[\t\n]", "", showable(text))
    for raw, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;")):
        clean = clean.replace(raw, entity)
    return clean


def shortened(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return text of at most ``limit`` characters, an ellipsis where some were left out."""
    if len(text) <= limit:
        return text
    return "…" + text[1 - limit :] if keep_end else text[: limit - 1] + "…"


def panel_title(text: str, y: float, palette: Palette) -> dict[str, Any]:
    """Return the annotation that names a panel, above its upper left corner.

    Args:
        text: Plotly's HTML; what came from outside has been through `literal`.
        y: The panel's upper end, from 0 to 1.
        palette: The mode's colours.
    """
    return {
        "text": text,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": y,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 13, "color": palette.text},
    }

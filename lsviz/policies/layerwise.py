"""A loss scale for every layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lsviz.policies.backoff import Rule, State, advance
from lsviz.policies.base import Outcome, Policy, Range, format_number, parse_number

LOWEST, HIGHEST = 2.0**-60, 2.0**60
"""Bounds of a layer's S: the ratio of any two is an FP32 number, by which a gradient can be multiplied."""

WHOLE_MODEL = ""
"""The name under which a model counts as one layer, where nobody tells its layers apart."""


class LayerScale(NamedTuple):
    """One layer's scale and its clean steps in a row."""

    layer: str
    scale: float
    clean_steps: int


def _power_of_two(value: float) -> float:
    if math.frexp(value)[0] != 0.5:
        raise ValueError("should be a power of two, so that every update stays exact")
    return value


def _layer_scale(value: float) -> float:
    if not LOWEST <= value <= HIGHEST:  # nan too
        raise ValueError("should be a number from 2^-60 to 2^60")
    return _power_of_two(value)


def _parse_layers(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    layers = []
    for part in filter(None, value.split("/")):
        try:
            name, scale, clean_steps = part.split("@")
            layers.append((unquote(name, errors="surrogatepass"), parse_number(scale), int(clean_steps)))
        except ValueError:
            raise ValueError("should look like layer1@1024@7/layer2@2^11@0") from None
    return tuple(layers)


def _check_layers(layers: tuple[LayerScale, ...]) -> tuple[LayerScale, ...]:
    for layer in layers:
        _layer_scale(layer.scale)
        if layer.clean_steps < 0:
            raise ValueError("should not hold a negative number of clean steps")
    if len({layer.layer for layer in layers}) < len(layers):
        raise ValueError("should name every layer once")
    return layers


_LayerScale = Annotated[float, AfterValidator(_layer_scale), Range(LOWEST, HIGHEST)]
_Layers = Annotated[tuple[LayerScale, ...], BeforeValidator(_parse_layers), AfterValidator(_check_layers)]


class Layerwise(Policy):
    """A scale per layer: only the layers where an overflow begins back off.

    After fairscale 0.4.13 (fairscale/optim/layerwise_gradient_scaler.py, LayerwiseGradientScaler), with
    two differences. There a layer's scale is used for the hooks of one step and changed before the next
    one is unscaled, so that the step after an overflow applies a gradient 512 times too large in its
    own test; here each gradient is undone by the scale that was in force. There every layer below an
    overflow backs off too, since Inf and NaN flow down; here only where it began. A layer is a module
    with parameters of its own; see `lsviz.training.layerscale` for how it is applied.
    """

    name: ClassVar[str] = "layerwise"
    rule: ClassVar[str] = (
        "Every layer has its own S, halved where an overflow begins in that layer and doubled after 2,000 "
        "clean steps in a row."
    )
    source: ClassVar[str] = (
        "fairscale 0.4.13, fairscale/optim/layerwise_gradient_scaler.py, with exact updates"
    )
    per_layer: ClassVar[bool] = True
    state_fields: ClassVar[tuple[str, ...]] = ("layers",)

    init_scale: _LayerScale = Field(default=2.0**16, description="S of every layer at the first step.")
    growth_factor: Annotated[float, AfterValidator(_power_of_two)] = Field(
        default=2.0, gt=1, le=2.0**16, description="Factor on a layer's S after enough clean steps."
    )
    backoff_factor: Annotated[float, AfterValidator(_power_of_two)] = Field(
        default=0.5, gt=0, lt=1, description="Factor on the S of a layer that overflowed."
    )
    growth_interval: int = Field(
        default=2000, ge=1, le=10**9, description="Clean steps in a row before a layer's S grows."
    )
    min_scale: _LayerScale = Field(default=LOWEST, description="Floor of a layer's S.")
    max_scale: _LayerScale = Field(default=HIGHEST, description="Ceiling of a layer's S.")
    layers: _Layers = Field(default=(), description="S and clean steps of each layer so far.")

    @property
    def scales(self) -> Mapping[str, float]:
        """S of every layer that has been heard of; all others have ``init_scale``."""
        return {layer.layer: layer.scale for layer in self.layers}

    @property
    def loss_scale(self) -> float:
        """The smallest S of any layer."""
        return min(self.scales.values(), default=self.init_scale)

    def scale_of(self, layer: str) -> float:
        """Return one layer's S."""
        return self.scales.get(layer, self.init_scale)

    def scales_of(self, layers: Iterable[str]) -> dict[str, float]:
        """Return each of these layers' S."""
        known = self.scales
        return {layer: known.get(layer, self.init_scale) for layer in layers}

    def update(self, outcome: Outcome) -> Self:
        """Return the policy after a step, every layer by its own outcome."""
        outcomes = {WHOLE_MODEL: outcome.finite} if outcome.layers is None else outcome.layers
        rule = Rule(
            init_scale=self.init_scale,
            growth_factor=self.growth_factor,
            backoff_factor=self.backoff_factor,
            growth_interval=self.growth_interval,
            min_scale=self.min_scale,
            max_scale=self.max_scale,
            beyond="hold",
        )
        layers = {layer.layer: layer for layer in self.layers}
        for name, finite in outcomes.items():
            before = layers.get(name, LayerScale(name, self.init_scale, 0))
            state = State(scale=before.scale, clean_steps=before.clean_steps, interval=self.growth_interval)
            after = advance(rule, state, finite=finite)
            layers[name] = LayerScale(name, after.scale, after.clean_steps)
        return self.model_copy(update={"layers": tuple(layers.values())})

    def counters(self) -> dict[str, Any]:
        """Return each layer's S and clean steps."""
        if [layer.layer for layer in self.layers] == [WHOLE_MODEL]:
            return {"clean_steps": self.layers[0].clean_steps}
        return {layer.layer: f"S = {layer.scale:g}, {layer.clean_steps} clean" for layer in self.layers}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_scale <= self.init_scale <= self.max_scale:
            raise ValueError(
                f"init_scale should lie between min_scale ({format_number(self.min_scale)}) and max_scale "
                f"({format_number(self.max_scale)})"
            )
        if any(not self.min_scale <= layer.scale <= self.max_scale for layer in self.layers):
            raise ValueError(
                f"layers should have scales between min_scale ({format_number(self.min_scale)}) and "
                f"max_scale ({format_number(self.max_scale)})"
            )
        return self


def format_layers(layers: tuple[LayerScale, ...]) -> str:
    """Return the text that the field ``layers`` is read from again."""
    return "/".join(
        f"{quote(e.layer, safe='.', errors='surrogatepass')}@{format_number(e.scale)}@{e.clean_steps}"
        for e in layers
    )

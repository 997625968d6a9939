"""What one S for all costs, on layers whose values lie apart by design."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lsviz.analysis.onescale import one_scale_finding, one_scale_frame
from lsviz.analysis.recommend import limiting_tensor
from lsviz.analysis.scalemap import SCALES, scale_map_frame
from lsviz.analysis.whatif import Histograms
from lsviz.formats import FP16
from tests.analysis.test_whatif import table_of


def rows_of(*layers: torch.Tensor) -> Histograms:
    return Histograms.of(table_of(*layers))


def flushed(values: torch.Tensor, scale: float) -> float:
    return float(((values * scale).half() == 0).double().mean())


def overflows(values: torch.Tensor, scale: float) -> bool:
    return bool(torch.isinf((values.double() * scale).half()).any())


@pytest.mark.parametrize("binades", [4, 30, 44])
def test_each_layer_at_the_shared_and_at_its_own_scale_as_torch_casts_them(binades: int) -> None:
    torch.manual_seed(binades)
    top = torch.randn(500)
    low = torch.randn(500) * 2.0**-binades
    rows = rows_of(low, top)
    costs = one_scale_frame(scale_map_frame(rows, FP16), ["layer0", "layer1"])
    assert costs["layer"].tolist() == ["layer0", "layer1"]
    shared = max(s for s in SCALES if not overflows(low, s) and not overflows(top, s))
    for values, row in zip((low, top), costs.to_dict("records"), strict=True):
        own = [s for s in SCALES if not overflows(values, s)]
        least = min(flushed(values, s) for s in own)
        assert row["scale"] == shared
        assert row["flushed"] == pytest.approx(flushed(values, shared))
        assert row["own_flushed"] == pytest.approx(least)
        assert row["own_scale"] == min(s for s in own if flushed(values, s) == least)
        assert row["saved"] == pytest.approx(flushed(values, shared) - least)
    words = one_scale_finding(costs, limiting_tensor(rows))
    helps = flushed(low, shared) > 0.01
    assert words.startswith("A scale per layer would help" if helps else "One S serves all layers")
    assert ("layer1 allows" in words) is True


def test_where_something_overflows_at_every_s_nothing_can_be_shared() -> None:
    rows = rows_of(torch.tensor([1.0, float("inf")]))
    costs = one_scale_frame(scale_map_frame(rows, FP16), ["layer0"])
    assert costs.empty
    assert "overflows at every S" in one_scale_finding(costs, "layer0")


def test_an_empty_map_has_no_costs() -> None:
    assert one_scale_frame(pd.DataFrame({"scale": [], "overflow": []}), []).empty

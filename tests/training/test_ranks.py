"""What distributed processes hand each other, through a store as they have one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from lsviz.exponents import ExponentHistogram
from lsviz.runs.schema import ExponentRow
from lsviz.training import ranks
from lsviz.training.ranks import Contribution, Gathering, summed_rows


@pytest.fixture
def store() -> Any:
    return torch.distributed.HashStore()


def row(tensor: str, values: Any, step: int = 3, *, exact: bool = True, kind: Any = "activation_grad") -> Any:
    histogram = ExponentHistogram.of(values)
    if not exact:
        histogram = ExponentHistogram(histogram.counts, histogram.zero, histogram.inf, histogram.nan)
    return ExponentRow(step, tensor, kind, False, 64.0, histogram)


def values(seed: int) -> Any:
    drawn = np.random.default_rng(seed).standard_normal(100) * 2.0 ** -np.arange(100)
    return np.append(drawn, [0.0, np.inf, np.nan])


def test_counts_arrive_as_they_were_and_once(store: Any) -> None:
    gathering = Gathering(store, range(1, 3))
    others = [Contribution(store, rank) for rank in (1, 2)]
    assert gathering.take(3) is None
    sent = [[row("a", values(1)), row("b", values(2), exact=False)], [row("a", values(3))]]
    others[1].send(3, sent[1])
    assert gathering.take(3) is None, "one is still missing"
    others[0].send(3, [*sent[0], row("a.weight", values(4), kind="weight_grad")])
    assert gathering.take(3) == sent
    assert not store.check(["1/3"]), "it would fill the store"


def test_who_never_records_is_not_waited_for(store: Any) -> None:
    assert Gathering(store, range(1, 4)).take(0) == []


def test_who_has_ended_is_not_waited_for(store: Any) -> None:
    gathering, other = Gathering(store, [1]), Contribution(store, 1)
    other.send(0, [row("a", values(1), 0)])
    other.end()
    assert gathering.take(0) == [[row("a", values(1), 0)]]
    assert gathering.take(1) == []
    assert not gathering.lost


@pytest.mark.parametrize("hurried", [False, True])
def test_waiting_has_an_end(
    store: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, *, hurried: bool
) -> None:
    monkeypatch.setattr(ranks, "WAIT_SECONDS", 60.0 if hurried else 0.2)
    gathering = Gathering(store, [1, 2])
    Contribution(store, 1)
    Contribution(store, 2).send(5, [row("a", values(1), 5)])
    assert gathering.take(5) is None
    if hurried:
        gathering.hurry()
    else:
        time.sleep(0.25)
    assert gathering.take(5) == [[row("a", values(1), 5)]]
    assert gathering.lost == {1}
    assert "rank 1 counted at step 5" in capsys.readouterr().err


def test_sums_are_of_all_values_and_leave_weights_alone() -> None:
    weight = row("a.weight", values(5), kind="weight_grad")
    own = [row("a", values(1)), row("b", values(2)), weight]
    summed = summed_rows(own, [[row("a", values(3))], [row("a", values(4))]])
    everything = np.concatenate([values(1), values(3), values(4)])
    assert summed[0].histogram == ExponentHistogram.of(everything)
    assert summed[1:] == own[1:]


def test_without_a_store_nothing_is_handed_on() -> None:
    other = Contribution(None, 1)
    other.send(3, [row("a", values(1))])
    other.end()

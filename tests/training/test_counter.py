"""The threads that count beside training: nothing lost, nothing held for longer than needed."""

from __future__ import annotations

import os
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from lsviz.exponents import ExponentHistogram
from lsviz.training import counter as module
from lsviz.training.counter import Counter, Counting
from lsviz.training.counting import compiled_counter, histograms, settled, tally_later
from tests.conftest import PATIENCE


@pytest.fixture
def counter() -> Counter:
    found = compiled_counter()
    assert found is not None
    return found


def values_of(seed: int, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def expected_counts(values: Tensor) -> list[int]:
    return ExponentHistogram.of(values.double().numpy()).counts.tolist()


def test_thousands_of_tensors_come_back_each_with_its_own_counts() -> None:
    given = [values_of(k, 1 + k % 700) for k in range(6000)]  # more than the queue holds
    started = [tally_later(values, rounding=k % 3 == 0) for k, values in enumerate(given)]
    found = histograms([settled(one) for one in started])
    assert [h.counts.tolist() for h in found] == [expected_counts(values) for values in given]
    assert [h.exact for h in found] == [k % 3 == 0 for k in range(6000)]


def test_a_tensor_is_let_go_once_it_is_counted(counter: Counter) -> None:
    values = values_of(0, 100_000)
    gone = weakref.ref(values)
    counting = tally_later(values)
    assert isinstance(counting, Counting)
    del values
    until = time.monotonic() + PATIENCE
    while not counting.done and time.monotonic() < until:
        time.sleep(0.001)
    tally_later(torch.ones(1))  # whatever is done is dropped as the next one starts
    assert gone() is None
    assert counting.held is None
    assert np.asarray(counting.result()[0]).sum() == 100_000
    counter.settle()
    assert counter._bytes == 0


def test_what_is_held_for_the_queue_is_bounded(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    started = []
    for k in range(50):
        started.append(tally_later(values_of(k, 200_000)))
        assert counter._bytes <= 1_000_000
    assert all(h.numel == 200_000 for h in histograms([settled(one) for one in started]))


def test_many_threads_may_ask_at_once() -> None:
    found: dict[int, list[list[int]]] = {}

    def ask(number: int) -> None:
        started = [tally_later(values_of(number * 100 + k, 5000)) for k in range(100)]
        found[number] = [h.counts.tolist() for h in histograms([settled(one) for one in started])]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for number in range(6):
        assert found[number] == [expected_counts(values_of(number * 100 + k, 5000)) for k in range(100)]


def test_a_process_forked_while_the_queue_is_full_counts_its_own() -> None:
    values = values_of(7, 50_000)
    expected = expected_counts(values)
    for k in range(300):
        tally_later(values_of(k, 20_000))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        (found,) = histograms([settled(tally_later(values))])
        os.write(writer, b"same" if found.counts.tolist() == expected else b"else")
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4) == b"same"
    assert os.waitpid(child, 0)[1] == 0

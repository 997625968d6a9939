from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from lsviz.training import ondevice
from lsviz.training.counting import Seat, count_exponents, histograms, settled, tally_later
from lsviz.training.ondevice import Queue, Together, count_together
from lsviz.training.recorder import GradientRecorder
from tests.training.test_counting import HALF_PATTERNS, assert_counts

FORMATS = [torch.float32, torch.float16, torch.bfloat16]
SIZES = (1, 511, 512, 513, 0, 7, 100_003, 4096)


def special(size: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return values over many binades, with zeros, Inf and NaN among them."""
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=chance) * torch.exp2(
        torch.randint(-40, 20, (size,), generator=chance).float()
    )
    values[::5] = 0.0
    values[3::97], values[4::101], values[5::103] = torch.inf, -torch.inf, torch.nan
    return values.to(dtype)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """No compiled loops, and a queue of the test's own."""
    queue = Queue()
    monkeypatch.setattr("lsviz.training.counting.compiled_counter", lambda: None)
    monkeypatch.setattr("lsviz.training.counting._QUEUE", queue)
    return queue


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rounding", [False, True])
def test_tensors_counted_together_are_counted_as_each_alone(dtype: torch.dtype, rounding: bool) -> None:
    given = [special(size, dtype, seed) for seed, size in enumerate(SIZES)]
    given.append(torch.randn(6, 10, 30).to(dtype).mT)
    given.append(torch.zeros(700, dtype=dtype))
    group = count_together(given, rounding=rounding)
    found = histograms([Seat(group, at) for at in range(len(given))])
    for values, histogram in zip(given, found, strict=True):
        assert_counts(histogram, values)
        assert histogram == count_exponents(values, rounding=rounding)


@pytest.mark.parametrize("lanes", [2, 64])
def test_the_lanes_of_a_gpu_add_up(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [special(size, torch.float16, seed) for seed, size in enumerate(SIZES)]
    monkeypatch.setattr(ondevice, "_lanes", lambda device: lanes)
    monkeypatch.setattr(ondevice, "_LANES", lanes)
    ondevice._lane_starts.cache_clear()
    try:
        for rounding in (False, True):
            group = count_together(given, rounding=rounding)
            found = histograms([Seat(group, at) for at in range(len(given))])
            assert found == [count_exponents(values, rounding=rounding) for values in given]
            (alone,) = histograms([Seat(count_together(given[6:7], rounding=rounding), 0)])
            assert alone == found[6]
    finally:
        ondevice._lane_starts.cache_clear()


def test_a_queue_counts_when_somebody_asks_and_lets_go(by_torch: Queue) -> None:
    mixed = [special(size, FORMATS[size % 3], seed) for seed, size in enumerate(SIZES)]
    waiting = [tally_later(values, rounding=k % 2 == 0) for k, values in enumerate(mixed)]
    assert len(by_torch._waiting) == len(mixed)
    tallies = [settled(one) for one in waiting]
    assert not by_torch._waiting
    assert all(one.held is None for one in waiting if isinstance(one, ondevice.Waiting))
    for k, (values, histogram) in enumerate(zip(mixed, histograms(tallies), strict=True)):
        assert histogram == count_exponents(values, rounding=k % 2 == 0)


def test_no_more_is_held_than_may_be(by_torch: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ondevice, "MOST_VALUES", 1000)
    first = tally_later(torch.ones(900))
    assert len(by_torch._waiting) == 1
    second = tally_later(torch.ones(101))
    assert not by_torch._waiting
    assert [h.numel for h in histograms([settled(first), settled(second)])] == [900, 101]
    monkeypatch.setattr("lsviz.training.counting.ALONE", 5000)
    assert isinstance(tally_later(torch.ones(5000)), Seat)


def test_one_that_cannot_be_counted_with_others_is_counted_alone(
    by_torch: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tally_later(torch.ones(30)), tally_later(torch.ones(40))

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched:
        patched.setattr(ondevice, "count_together", fail)
        with pytest.raises(torch.OutOfMemoryError):
            settled(first)
    assert [h.numel for h in histograms([settled(first), settled(second)])] == [30, 40]


def test_many_threads_share_a_queue(by_torch: Queue) -> None:
    found: dict[int, list[int]] = {}

    def count(number: int) -> None:
        started = [tally_later(torch.ones(number * 100 + k)) for k in range(50)]
        found[number] = [h.numel for h in histograms([settled(one) for one in started])]

    threads = [threading.Thread(target=count, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number * 100 + k for k in range(50)] for number in range(8)}


def test_what_is_fetched_once_is_not_fetched_again() -> None:
    groups = [count_together([special(300, torch.float16, k), torch.ones(5).half()]) for k in range(3)]
    Together.fetch(groups)
    before = [group.tables.tolist() for group in groups]
    Together.fetch([*groups, groups[0]])
    assert [group.tables.tolist() for group in groups] == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rounding", [False, True])
def test_a_gpu_counts_together_what_the_cpu_counts_alone(dtype: torch.dtype, rounding: bool) -> None:
    given = [special(size, dtype, seed) for seed, size in enumerate(SIZES)]
    given += [HALF_PATTERNS.view(torch.float16).to(dtype), special(3_000_000, dtype, 9)]
    on_gpu = [values.cuda() for values in given]
    expected = [count_exponents(values, rounding=rounding) for values in given]
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            waiting = [tally_later(values, rounding=rounding) for values in on_gpu]
            assert histograms([settled(one) for one in waiting]) == expected
        finally:
            torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gradient_of_another_stream_is_counted_as_it_came_to_be() -> None:
    side = torch.cuda.Stream()
    expected = count_exponents(torch.full((2_000_000,), 3.0))
    for _ in range(10):
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)
            values = torch.zeros(2_000_000, device="cuda").add_(3.0)
            waiting = tally_later(values)
        del values
        counted = settled(waiting)
        with torch.cuda.stream(side):
            torch.full((2_000_000,), 5.0, device="cuda")  # takes the memory where it is free
        assert histograms([counted]) == [expected]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorder_counts_on_a_gpu_all_that_backward_left() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 300), nn.LayerNorm(300), nn.ReLU(), nn.Linear(300, 10)).cuda()
    recorder = GradientRecorder(model)
    with recorder.recording(), torch.autocast("cuda", dtype=torch.float16):
        (model(torch.randn(32, 64, device="cuda")).square().mean() * 2**10).backward()
    rows = {row.tensor: row.histogram for row in recorder.rows(0, 2.0**10)}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_counts(rows.pop(name), parameter.grad.cpu())
    assert {name: row.numel for name, row in rows.items()} == {"0": 9600, "1": 9600, "2": 9600, "3": 320}

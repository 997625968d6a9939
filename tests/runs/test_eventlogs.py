"""Event files that torch's own SummaryWriter wrote, taken in; and those that nobody should take in."""

from __future__ import annotations

import io
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.histogram.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from lsviz.analysis.replay import replay
from lsviz.analysis.series import load_series
from lsviz.errors import UserError
from lsviz.exponents import EXPONENTS, ExponentHistogram
from lsviz.policies import parse_policy
from lsviz.runs import eventlogs, eventrecords
from lsviz.runs.eventfiles import save_events
from lsviz.runs.incoming import import_file, import_path
from lsviz.runs.inspection import inspect_folder
from lsviz.runs.reader import Run
from lsviz.runs.schema import OWN_LOOP
from lsviz.runs.store import RunStore
from tests.runs.test_eventfiles import sample

Arrays = dict[tuple[int, str], npt.NDArray[np.float32]]
GROWTH = 1.1
"""Of torch's buckets."""
STEPS = 16


class Training:
    """A loop in FP16 under a real GradScaler, logged as people do; gradients are kept as they were logged."""

    def __init__(self, folder: Path, *, scaled: bool = False, every: int = 1) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17, growth_interval=3)
        self.gradients: Arrays = {}
        self.scales: list[float] = []
        self.losses: list[float] = []
        self.overflowed: list[int] = []
        with np.errstate(invalid="ignore"), SummaryWriter(folder) as writer:  # it adds up Inf and -Inf
            for step in range(STEPS):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = nn.functional.cross_entropy(
                        model(torch.randn(16, 24)).float(), torch.arange(16) % 4
                    )
                self.scales.append(scaler.get_scale())
                self.losses.append(loss.item())
                scaler.scale(loss).backward()
                if not scaled:
                    scaler.unscale_(optimizer)
                for name, parameter in model.named_parameters():
                    if step % every == 0:
                        assert parameter.grad is not None
                        self.gradients[step, name] = parameter.grad.numpy().copy()
                        writer.add_histogram(f"grad/{name}", parameter.grad, step)
                writer.add_scalar("train/loss", loss.item(), step)
                writer.add_scalar("val/loss", 99.0, step)
                writer.add_scalar("amp/scale", self.scales[-1], step)
                writer.add_histogram("weights/0", model[0].weight, step)
                scaler.step(optimizer)
                scaler.update()
                if scaler.get_scale() < self.scales[-1]:
                    self.overflowed.append(step)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    folder = tmp_path_factory.mktemp("log") / "my run"
    return folder, Training(folder)


@pytest.fixture
def taken(logged: tuple[Path, Training], tmp_path: Path) -> tuple[Run, Training]:
    (run,), wrong = import_path(logged[0], RunStore.at(tmp_path / "runs"))
    assert wrong == []
    return run, logged[1]


def below(histogram: ExponentHistogram, exponent: int) -> int:
    """Return how many values are non-zero and less than 2^exponent."""
    return int(histogram.counts[exponent > EXPONENTS].sum())


def assert_within_a_bucket(found: ExponentHistogram, values: npt.NDArray[Any]) -> None:
    """At each power of two, at most the values of the one bucket around it may stand on its wrong side."""
    magnitudes = np.abs(values.astype(np.float64).ravel())
    exact = ExponentHistogram.of(values)
    for exponent in range(-45, 48):
        edge = 2.0**exponent
        around = (magnitudes > edge / GROWTH) & (magnitudes < edge * GROWTH)
        assert abs(below(found, exponent) - below(exact, exponent)) <= around.sum(), exponent
    assert (found.zero, found.inf, found.nan) == (exact.zero, exact.inf, exact.nan)
    assert found.numel == exact.numel


def test_exponents_are_those_of_the_logged_arrays(taken: tuple[Run, Training]) -> None:
    run, training = taken
    rows = run.exponents()
    assert len(rows) == len(training.gradients) == STEPS * 4
    misplaced = spoilt = 0
    for row in rows.to_dict("records"):
        values = training.gradients[row["step"], row["tensor"]]
        scale = training.scales[row["step"]]
        assert (row["kind"], row["reference"], row["loss_scale"]) == ("weight_grad", False, scale)
        with np.errstate(invalid="ignore"):
            scaled = values.astype(np.float64) * scale
        found = ExponentHistogram.from_dict(row)
        assert_within_a_bucket(found, scaled)
        finite = np.abs(scaled[np.isfinite(scaled)])
        if len(finite) == scaled.size:
            assert found.amax == pytest.approx(finite.max(), rel=1e-12)
        spoilt += found.inf + found.nan > 0
        misplaced += not np.array_equal(found.counts, ExponentHistogram.of(scaled).counts)
    assert spoilt > 0, "a step that overflowed must be among them"
    assert misplaced > 0, "the counts are approximate: were they exact, the tolerance would test nothing"


def test_steps_are_those_of_the_loop(taken: tuple[Run, Training]) -> None:
    run, training = taken
    steps = run.steps()
    assert steps["loss_scale"].tolist() == training.scales
    assert steps["loss"].tolist() == [np.float32(loss) for loss in training.losses]
    assert training.overflowed
    assert steps.loc[steps["skipped"], "step"].tolist() == training.overflowed
    assert (steps["ms"].iloc[1:] >= 0).all()
    assert (run.record.engine, run.config.task, run.config.precision) == (OWN_LOOP, "my-run", "fp16")
    assert (run.status.state, run.status.step, run.labels.name) == ("finished", STEPS, "my run")
    assert "approximate" in run.record.source
    assert "1 histograms do not say grad" in run.record.source
    assert "loss from train/loss, loss_scale from amp/scale" in run.record.source


def test_replay_takes_it(taken: tuple[Run, Training]) -> None:
    run, training = taken
    policy = parse_policy("gradscaler:init_scale=131072,growth_interval=3")
    done = replay(policy, load_series(run))
    assert done.scales == training.scales
    assert done.skipped == training.overflowed


def test_gradients_logged_before_unscaling_are_taken_as_they_are(tmp_path: Path) -> None:
    training = Training(tmp_path / "log", scaled=True, every=5)
    (run,), _ = import_path(tmp_path / "log", RunStore.at(tmp_path / "runs"), "scaled")
    rows = run.exponents()
    assert sorted(set(rows["step"])) == [0, 5, 10, 15]
    assert run.config.record_every == 5
    for row in rows.to_dict("records"):
        values = training.gradients[row["step"], row["tensor"]]
        assert_within_a_bucket(ExponentHistogram.from_dict(row), values)
        assert row["loss_scale"] == training.scales[row["step"]]


def test_without_a_scale_gradients_are_fp32s(tmp_path: Path) -> None:
    values = {
        "tiny": torch.tensor([0.0, -0.0, 1e-13, 3e-12, -3e-12, -1e-13, 2.0**-149]),
        "wide": torch.randn(5000).sign() * (1 + torch.rand(5000)) * 2.0 ** torch.randint(-39, 40, (5000,)),
        "dead": torch.zeros(10),
        "spoilt": torch.tensor([1.0, float("nan"), float("inf"), -2.0]),
        "inf": torch.tensor([1.0, float("-inf"), float("inf"), 3.0]),
    }
    with np.errstate(invalid="ignore"), SummaryWriter(tmp_path / "log") as writer:
        for name, tensor in values.items():
            writer.add_histogram(f"{name}.grad", tensor, 7)
    (run,), _ = import_path(tmp_path / "log", RunStore.at(tmp_path / "runs"))
    assert (run.config.precision, run.config.policy) == ("fp32", "none")
    found = {r["tensor"]: ExponentHistogram.from_dict(r) for r in run.exponents().to_dict("records")}
    assert found.keys() == values.keys()
    for name in ("wide", "dead"):
        assert_within_a_bucket(found[name], values[name].numpy())
    assert (found["tiny"].zero, found["tiny"].numel) == (4, 7)  # 1e-13 and 2^-149 lie in zero's own bucket
    assert found["tiny"].counts[-39 + 80] == 2
    assert (found["inf"].inf, found["inf"].amax) == (2, pytest.approx(3.0, rel=0.1))
    assert found["spoilt"].inf + found["spoilt"].nan == 2
    assert found["spoilt"].numel == 4


def test_every_folder_of_a_log_becomes_a_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name, loss in (("", 1.0), ("b", 2.0)):
        with SummaryWriter(log / name) as writer:
            writer.add_scalar("loss", loss, 0)
    with SummaryWriter(log / "c") as writer:
        writer.add_scalar("nothing", 1.0, 0)
    (tmp_path / "elsewhere.tfevents").write_bytes(b"secret")
    (log / "b" / "link.tfevents").symlink_to(tmp_path / "elsewhere.tfevents")
    came, wrong = import_path(log, RunStore.at(tmp_path / "runs"))
    assert [(r.labels.name, r.steps()["loss"].tolist()) for r in came] == [("log", [1.0]), ("log/b", [2.0])]
    assert wrong == [
        "'log/c' can't be taken in: no tag of it says loss or loss_scale, and no histogram's says grad, "
        "as grad/layer1.weight; it has 'nothing'"
    ]


def test_files_of_one_folder_are_one_run_and_the_last_word_counts(tmp_path: Path) -> None:
    for name, losses in (("events.out.tfevents.1", [1.0, 2.0]), ("events.out.tfevents.2", [5.0])):
        (tmp_path / name).write_bytes(
            event_file(*(event(len(losses) % 2 + i, number("loss", x)) for i, x in enumerate(losses)))
        )
    (run,), _ = import_path(tmp_path, RunStore.at(tmp_path / "runs"))
    assert run.steps()[["step", "loss"]].to_numpy().tolist() == [[0, 1.0], [1, 5.0]]


def event(step: int, *values: Summary.Value) -> bytes:
    made: bytes = Event(wall_time=1.0 + step, step=step, summary=Summary(value=values)).SerializeToString()
    return made


def number(tag: str, value: float) -> Summary.Value:
    return Summary.Value(tag=tag, simple_value=value)


def histogram(limits: list[float], counts: list[float], **more: float) -> Summary.Value:
    told = {"min": -1.0, "max": 1.0, "num": sum(counts), **more}
    return Summary.Value(tag="grad/w", histo=HistogramProto(bucket_limit=limits, bucket=counts, **told))


def table(shape: list[int], dtype: int = 2, **content: Any) -> Summary.Value:
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    tensor = TensorProto(dtype=dtype, tensor_shape=TensorShapeProto(dim=dims), **content)
    return Summary.Value(tag="grad/w", metadata=create_summary_metadata(None, None), tensor=tensor)


def event_file(*events: bytes) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for each in (Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString(), *events):
        writer.write(each)
    return file.getvalue()


def test_tensorboard_2s_kind_of_histogram_is_read(tmp_path: Path) -> None:
    rows = np.array([[0.25, 0.5, 3], [0.5, 1.0, 4]])
    data = event_file(event(2, table([2, 3], tensor_content=rows.tobytes())))
    (run,), _ = import_file(io.BytesIO(data), RunStore.at(tmp_path))
    (row,) = run.exponents().to_dict("records")
    assert {int(e): int(n) for e, n in zip(EXPONENTS, row["counts"], strict=True) if n} == {-2: 3, -1: 4}


def test_a_file_that_is_being_written_gives_what_it_has(tmp_path: Path) -> None:
    data = event_file(event(0, number("loss", 1.0)), event(1, number("loss", 2.0)))
    (run,), _ = import_file(io.BytesIO(data[:-3]), RunStore.at(tmp_path))
    assert run.steps()["loss"].tolist() == [1.0]
    assert "damaged or unfinished" in run.record.source
    spoilt = bytearray(data)
    spoilt[-10] ^= 1
    for damaged in (bytes(spoilt), lying_length(event(0, number("loss", 1.0)))):
        (run,), _ = import_file(io.BytesIO(damaged), RunStore.at(tmp_path))
        assert run.steps()["loss"].tolist() == [1.0]
        assert "damaged or unfinished" in run.record.source


def test_large_records_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventrecords, "MAX_RECORD", 1000)
    picture = Summary.Value(tag="loss/picture", image=Summary.Image(encoded_image_string=b"x" * 2000))
    data = event_file(event(0, picture), event(1, number("loss", 2.0)))
    (run,), _ = import_file(io.BytesIO(data), RunStore.at(tmp_path))
    assert run.steps()["loss"].tolist() == [2.0]
    assert "1 records of more than" in run.record.source


def lying_length(*events: bytes) -> bytes:
    """Return a file whose last record says that it is larger than any disk."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    header = struct.pack("<Q", 2**62)
    return event_file(*events) + header + struct.pack("<I", masked_crc32c(header)) + b"x" * 50


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (event_file, "it holds no values"),
        (lying_length, "it holds no values"),
        (lambda: event_file(b"\xff" * 20), "a record of it is no event"),
        (lambda: event_file(event(-1, number("loss", 1))), "step -1 is not from 0 to 999,999"),
        (lambda: event_file(event(10**6, number("loss", 1))), "step 1,000,000 is not from 0"),
        (
            lambda: event_file(event(0, number("scale", 0))),
            "'scale' is S: it must be a positive number of FP32",
        ),
        (
            lambda: event_file(event(0, number("scale", np.inf))),
            "'scale' is S: it must be a positive number of FP32",
        ),
        (lambda: event_file(event(0, histogram([1, 0], [1, 1]))), "its buckets are not in order"),
        (lambda: event_file(event(0, histogram([0, np.nan], [1, 1]))), "its buckets are not in order"),
        (lambda: event_file(event(0, histogram([0, 1], [1]))), "3 ends of 1 buckets"),
        (lambda: event_file(event(0, histogram([0, 1], [1, -1]))), "are not whole numbers from 0"),
        (lambda: event_file(event(0, histogram([0, 1], [1, np.inf]))), "are not whole numbers from 0"),
        (lambda: event_file(event(0, histogram([0, 1], [1, 2.0**40]))), "are not whole numbers from 0"),
        (lambda: event_file(event(0, histogram([0, 1], [1, 1], num=-5))), "are not whole numbers from 0"),
        (lambda: event_file(event(0, histogram([], []))), "it has no buckets"),
        (lambda: event_file(event(0, histogram([-0.5, 0, 0.5, 1], [1, 2, 2, 1]))), "wider than a binade"),
        (lambda: event_file(event(0, table([2**40, 3], double_val=[1.0]))), "no table of left ends"),
        (lambda: event_file(event(0, table([2, 3], double_val=[1.0, 2.0]))), "not as large as it says"),
        (lambda: event_file(event(0, table([2, 3], dtype=7, string_val=[b"x"]))), "no table of left ends"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_stays(
    data: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as told:
        import_file(io.BytesIO(data()), RunStore.at(tmp_path / "runs"), "events")
    assert reason in str(told.value)
    assert str(told.value).startswith("'events' can't be taken in: ")
    assert "\n" not in str(told.value)
    assert not list(tmp_path.glob("runs/*"))


def test_a_spoilt_event_is_taken_in_or_told_in_one_line(tmp_path: Path) -> None:
    chance = random.Random(0)
    told: set[str] = set()
    taken = 0
    whole = [event(i, number("loss", 1.0), histogram([0.5, 0.54, 0.58], [0, 3, 4])) for i in range(3)]
    for _ in range(150):
        spoilt = bytearray(whole[1])
        for _ in range(chance.choice((1, 3))):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        try:
            (run,), _ = import_file(
                io.BytesIO(event_file(whole[0], bytes(spoilt), whole[2])), RunStore.at(tmp_path)
            )
        except UserError as error:
            told.add(str(error))
            left = list(tmp_path.iterdir())
            assert left == []
        else:
            inspect_folder(run.path)
            assert {0, 2} <= set(run.steps()["step"])
            shutil.rmtree(run.path)
            taken += 1
    assert taken > 10
    assert len(told) > 2
    assert not any("\n" in line for line in told)


@pytest.mark.parametrize(
    ("where", "bound", "reason"),
    [
        (eventlogs, "MAX_VALUES", "more than 1 values"),
        (eventlogs, "MAX_HISTOGRAMS", "more than 1 histograms"),
        (eventrecords, "MAX_LOG_BYTES", "more than 1 bytes"),
    ],
)
def test_sizes_are_bounded(
    where: Any, bound: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, bound, 1)
    data = event_file(*(event(i, histogram([0.5, 0.75], [0, 1])) for i in range(3)))
    with pytest.raises(UserError, match=reason):
        import_file(io.BytesIO(data), RunStore.at(tmp_path))


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventrecords, "MAX_FILES", 1)
    for name in "ab":
        (tmp_path / f"{name}.tfevents").write_bytes(event_file())
    with pytest.raises(UserError, match="2 event files in 1 folders, more than 1 in 100"):
        import_path(tmp_path, RunStore.at(tmp_path / "runs"))


def test_what_lsviz_exported_is_not_taken_for_gradients(tmp_path: Path) -> None:
    from lsviz.analysis.shares import flushed_frame

    run = sample("sigmoid-mlp", "none")
    file = save_events(run, flushed_frame(run.exponents()), tmp_path)
    with pytest.raises(UserError, match="lsviz wrote it"):
        import_path(file, RunStore.at(tmp_path / "runs"))


def test_without_the_package_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = event_file(event(0, number("loss", 1.0)))
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"^TensorBoard's event files need .*lsviz\[tensorboard\]"):
        import_file(io.BytesIO(data), RunStore.at(tmp_path))

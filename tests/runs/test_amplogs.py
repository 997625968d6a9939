"""Logs in JSON of a real GradScaler, taken in; and those that are none."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lsviz.analysis.replay import replay
from lsviz.analysis.series import load_series
from lsviz.errors import UserError
from lsviz.policies import parse_policy
from lsviz.runs import amplogs
from lsviz.runs.incoming import import_file
from lsviz.runs.lognames import choose_columns, column_of, gradient_of
from lsviz.runs.reader import Run
from lsviz.runs.schema import OWN_LOOP
from lsviz.runs.store import RunStore

STEPS = 24
POLICY = "gradscaler:init_scale=65536,growth_interval=4"


class Loop:
    """A loop that overflows now and then: what its scaler had before and after each step, and found."""

    def __init__(self, first: int = 3) -> None:
        torch.manual_seed(0)
        model = nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=4)
        self.before: list[float] = []
        self.after: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.overflowed: list[bool] = []
        for step in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = model(torch.randn(4, 8)).float().pow(2).mean() * (1e4 if step in (first, 13) else 1)
            self.before.append(scaler.get_scale())
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            self.norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e9)))
            taken = [parameter.detach().clone() for parameter in model.parameters()]
            scaler.step(optimizer)
            same = all(torch.equal(a, b) for a, b in zip(taken, model.parameters(), strict=True))
            self.overflowed.append(same)
            scaler.update()
            self.after.append(scaler.get_scale())
            self.losses.append(loss.item())

    @property
    def skipped(self) -> list[int]:
        return [step for step, overflowed in enumerate(self.overflowed) if overflowed]


@pytest.fixture(scope="module")
def loop() -> Loop:
    made = Loop()
    assert 2 <= len(made.skipped) < 8
    return made


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def take(data: bytes, root: Path, name: str = "train.jsonl") -> Run:
    (run,), wrong = import_file(io.BytesIO(data), RunStore.at(root), name)
    assert wrong == []
    return run


def assert_replays(run: Run, loop: Loop) -> None:
    """The steps are the loop's, and its own policy does over them what it did."""
    steps = run.steps()
    assert steps["loss_scale"].tolist() == loop.before
    assert steps.loc[steps["skipped"], "step"].tolist() == loop.skipped
    done = replay(parse_policy(POLICY), load_series(run))
    assert done.scales == loop.before
    assert done.skipped == loop.skipped


def test_a_log_of_s_in_force_and_found_inf(loop: Loop, tmp_path: Path) -> None:
    rows = [
        {"step": i, "loss": loop.losses[i], "scale": loop.before[i], "found_inf": float(loop.overflowed[i])}
        for i in range(STEPS)
    ]
    for data in (lines(rows), json.dumps(rows).encode(), b"\xef\xbb\xbf" + lines(rows) + b"\r\n\r\n"):
        run = take(data, tmp_path)
        assert_replays(run, loop)
        assert run.steps()["loss"].tolist() == loop.losses
    assert run.outcomes()["finite"].tolist() == [not overflowed for overflowed in loop.overflowed]
    assert (run.record.engine, run.config.task, run.config.precision) == (OWN_LOOP, "train", "fp16")
    assert run.config.policy == "gradscaler"  # 2^16 is its own first S
    assert run.status.skipped_steps == len(loop.skipped)
    assert run.exponents().empty
    assert len({path.name for path in tmp_path.iterdir()}) == 3


@pytest.mark.parametrize("first", [0, 3])
def test_s_that_was_read_after_the_update_is_moved_on(first: int, tmp_path: Path) -> None:
    loop = Loop(first)
    assert loop.overflowed[0] == (first == 0)
    rows = [{"step": i, "grad_scale": loop.after[i], "skipped": loop.overflowed[i]} for i in range(STEPS)]
    run = take(lines(rows), tmp_path)
    assert "moved on by one step" in run.record.source
    assert_replays(run, loop)


@pytest.mark.parametrize(
    ("logged", "overflowed", "in_force"),
    [
        ([8, 8, 8], [0], [16, 8, 8]),  # nothing fell after it: S had fallen by then
        ([8, 4, 4], [0], [8, 4, 4]),
        ([8, 4, 2, 2], [0, 1, 2], [16, 8, 4, 2]),
        ([16, 8, 4, 2], [0, 1, 2], [16, 8, 4, 2]),
        ([8, 8, 4], [2], [8, 8, 4]),  # the last step can't tell: taken as it stands
        ([8, 8, 4, 4], [2], [8, 8, 8, 4]),
        ([8, 8, 8, 4], [2], [8, 8, 8, 4]),
    ],
)
def test_whether_s_was_read_before_or_after_the_update(
    logged: list[int], overflowed: list[int], in_force: list[int], tmp_path: Path
) -> None:
    rows = [{"step": i, "scale": s, "found_inf": i in overflowed} for i, s in enumerate(logged)]
    steps = take(lines(rows), tmp_path).steps()
    assert steps["loss_scale"].tolist() == in_force
    assert steps.loc[steps["skipped"], "step"].tolist() == overflowed


def test_a_fall_of_s_tells_of_an_overflow(loop: Loop, tmp_path: Path) -> None:
    run = take(lines([{"step": i, "train/loss_scale": s} for i, s in enumerate(loop.before)]), tmp_path)
    assert_replays(run, loop)
    assert run.steps()["loss"].isna().all()


def test_a_norm_that_is_not_finite_tells_of_an_overflow(loop: Loop, tmp_path: Path) -> None:
    rows = [{"step": i, "scale": loop.after[i], "grad_norm": loop.norms[i]} for i in range(STEPS)]
    assert b"Infinity" in lines(rows) or b"NaN" in lines(rows)
    assert_replays(take(lines(rows), tmp_path), loop)


def test_every_column_is_taken_and_what_is_missing_stays_empty(tmp_path: Path) -> None:
    rows = [
        {"global_step": 4, "loss": math.nan, "learning_rate": 0.1, "scale": 8, "found_inf": True, "x": [1]},
        {"global_step": 2, "loss": 1, "lr": None, "accuracy": 0.5, "gnorm": 3.5, "scale": 16},
        {"epoch": 1, "note": "an object of other things"},
        {"global_step": 2.0, "loss": 2},
    ]
    run = take(lines(rows), tmp_path)
    steps = run.steps()
    assert steps["step"].tolist() == [2, 4]
    assert steps["loss"].tolist()[0] == 2  # what was said last
    assert math.isnan(steps["loss"][1])
    assert steps["metric"].tolist()[0] == 0.5
    assert steps["grad_norm"].tolist()[0] == 3.5
    assert steps["lr"].tolist()[1] == 0.1
    assert steps["skipped"].tolist() == [True, True]  # the first by the fall of S after it
    assert run.outcomes()["curable"].tolist() == [None, False]  # a loss that is NaN knows nothing of S
    assert run.record.metric_name == "metric"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"step": 1, "loss": 1}\n{"step"', "line 2 is no JSON ("),
        (b'[{"step": 1, "loss": 1}', "it is no JSON ("),
        (b"[" * 100_000, "it is no JSON (it is nested too deeply); a list of objects is needed"),
        (b'{"a":' * 100_000, "line 1 is no JSON (it is nested too deeply)"),
        (b'{"step": 1, "loss": 1}\n7', 'line 2 is no object; one object a step, as {"step": 3'),
        (b'[{"step": 1, "loss": 1}, []]', "object 2 is no object"),
        (b'{"step": "1", "loss": 1}', "line 1: step must be a whole number from 0 to 999,999, got '1'"),
        (b'{"step": 1.5, "loss": 1}', "got 1.5"),
        (b'{"step": true, "loss": 1}', "got True"),
        (b'{"step": 1000000, "loss": 1}', "got 1000000"),
        (
            b'{"step": 1, "loss": 1}\n{"loss": 1}',
            "line 2: step must be a whole number from 0 to 999,999, got nothing",
        ),
        (b'{"step": 1, "loss": "0.5"}', "line 1: loss must be a number, got '0.5'"),
        (b'{"step": 1, "loss": {"a": 1}}', "line 1: loss must be a number, got"),
        (b'{"step": 1, "scale": 0}', "line 1: scale is S: it must be a positive number of FP32, got 0"),
        (b'{"step": 1, "scale": -8}', "got -8"),
        (b'{"step": 1, "scale": NaN}', "got nan"),
        (b'{"step": 1, "scale": 1e999}', "got inf"),
        (b'{"step": 1, "scale": true}', "scale must be a number"),
        (b'{"step": 1, "skipped": 3}', "line 1: skipped must be 0 or 1 (false or true) of this step alone"),
        (b'{"loss": 1}', "its objects need step, and loss, loss_scale or found_inf; their keys: 'loss'"),
        (b'{"step": 1, "val_loss": 1}', "their keys: 'step', 'val_loss'"),
        (b"[]", "their keys: none"),
        (b'{"step": 1, "loss": null}', "their keys: 'step'"),
        (b'{"step": null, "loss": 1}', "their keys: 'loss'"),
        (b'{"step": 1, "loss": 1' + b"0" * 5000 + b"}", "line 1 is no JSON"),
        (b'{"x": "\xff"}', "line 1 is no JSON"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_stays(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        take(data, tmp_path / "runs", "log.json")
    assert reason in str(told.value)
    assert str(told.value).startswith("'log.json' is no log that can be taken in: ")
    assert "\n" not in str(told.value)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("bound", "data", "reason"),
    [
        ("MAX_JSON_BYTES", b'{"step": 1, "loss": 1}', "it has 22 bytes, more than 9; log fewer steps"),
        ("MAX_LIST_BYTES", b'[{"step": 1, "loss": 1}]', "24 bytes, more than 9; write an object a line"),
        ("MAX_LINE", b'{"step": 1, "loss": 1}', "line 1 is longer than 9 bytes"),
        ("MAX_STEPS", b'{"step": 1, "loss": 1}\n' * 10, "it holds more than 9 objects"),
    ],
)
def test_sizes_are_bounded(
    bound: str, data: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amplogs, bound, 9)
    with pytest.raises(UserError, match=reason):
        take(data, tmp_path)


def test_what_is_no_known_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^'a.bin' is no exported run: it is neither a zip of lsviz export nor"
    ):
        take(b"\x80\x04K\x01.", tmp_path, "a.bin")


@pytest.mark.parametrize(
    ("tags", "chosen"),
    [
        (["val/loss", "train/loss", "lr"], {"loss": "train/loss", "lr": "lr"}),
        (["epoch_loss/total", "loss", "train_loss"], {"loss": "loss"}),
        (["norm1/scale", "amp/scale"], {"loss_scale": "amp/scale"}),
        (["scale", "Loss-Scale"], {"loss_scale": "Loss-Scale"}),
        (["eval/accuracy", "Learning Rate"], {"metric": "eval/accuracy", "lr": "Learning Rate"}),
        (["lossy", "scaled"], {}),
    ],
)
def test_which_tag_means_which_column(tags: list[str], chosen: dict[str, str]) -> None:
    assert choose_columns(tags) == chosen
    assert choose_columns(tags[::-1]) == chosen
    assert all(column_of(tag) for tag in chosen.values())


@pytest.mark.parametrize(
    ("tag", "named"),
    [
        ("grad/layer1.weight", ("layer1.weight", "weight_grad")),
        ("layer1.weight.grad", ("layer1.weight", "weight_grad")),
        ("layer1.weight_grad", ("layer1.weight", "weight_grad")),
        ("gradients/layer1/weight", ("layer1.weight", "weight_grad")),
        ("layer1/weight/grad", ("layer1.weight", "weight_grad")),
        ("Gradients/fc.bias", ("fc.bias", "weight_grad")),
        ("activation_grad/layer1", ("layer1", "activation_grad")),
        ("grad_output/block.0", ("block.0", "activation_grad")),
        ("grads", ("grads", "weight_grad")),
        ("weights/layer1", None),
        ("layer1.weight", None),
        ("upgrade/layer1", None),
    ],
)
def test_which_gradient_a_histogram_is_of(tag: str, named: tuple[str, str] | None) -> None:
    assert gradient_of(tag) == named

"""``lsviz.record`` around loops of all kinds: what it writes, and that it leaves them alone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lsviz
from lsviz.errors import UserError
from lsviz.exponents import ExponentHistogram
from lsviz.training.recording import Recording
from tests.training.test_counting import independent_counts

STEPS = 6

Loop = Callable[[nn.Module, Recording | None], list[float]]


class Net(nn.Module):
    """Dropout, batch norm, a layer used twice, tied weights, a frozen layer, a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.twice = nn.Linear(8, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 8, bias=False)
        self.head.weight = self.twice.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.embed(x))
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        x = self.drop(self.frozen(x))
        return {"hidden": x, "out": self.head(x)}


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(16, 6, generator=generator) for _ in range(2 * STEPS)]


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    return out["out"].float().pow(2).mean() + 0.1 * out["hidden"].float().abs().mean()


def plain(model: nn.Module, rec: Recording | None) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for x in batches()[:STEPS]:
        loss = loss_of(model, x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if rec is not None:
            rec.step(loss)
    return losses


def scaled(model: nn.Module, rec: Recording | None, scaler: torch.amp.GradScaler) -> list[float]:
    """Accumulates two batches, clips, and starts at an S that overflows."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    losses, both = [], batches()
    for step in range(STEPS):
        total = 0.0
        for x in both[2 * step : 2 * step + 2]:
            with torch.autocast("cpu", dtype=torch.float16):
                loss = loss_of(model, x) / 2
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(total)
        if rec is not None:
            rec.step(loss=total)
    return losses


def two_optimizers(model: nn.Module, rec: Recording | None) -> list[float]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    first, second = torch.optim.SGD(parameters[:2], lr=0.1), torch.optim.Adam(parameters[2:], lr=1e-3)
    losses = []
    for x in batches()[:STEPS]:
        loss = loss_of(model, x)
        loss.backward()
        for optimizer in (first, second):
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        losses.append(float(loss.detach()))
        if rec is not None:
            rec.step(loss)
    return losses


def fresh_scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=2)


def build(wrap: str = "") -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = Net()
    if wrap == "compile":
        torch.compiler.reset()
        return torch.compile(model, backend="aot_eager")  # type: ignore[return-value]
    if wrap == "compile in place":
        torch.compiler.reset()
        model.compile(backend="aot_eager")
    if wrap == "parallel":
        return nn.DataParallel(model)
    return model


@pytest.mark.parametrize("wrap", ["", "compile", "compile in place", "parallel"])
@pytest.mark.parametrize("loop", ["plain", "scaled", "two optimizers"])
@pytest.mark.parametrize("every", [1, 3])
def test_training_is_the_same_to_the_last_bit(wrap: str, loop: str, every: int, tmp_path: Path) -> None:
    def run(model: nn.Module, rec: Recording | None, scaler: torch.amp.GradScaler) -> list[float]:
        torch.manual_seed(1)
        if loop == "scaled":
            return scaled(model, rec, scaler)
        return plain(model, rec) if loop == "plain" else two_optimizers(model, rec)

    bare = build(wrap)
    expected = run(bare, None, fresh_scaler())
    watched, scaler = build(wrap), fresh_scaler()
    given = scaler if loop == "scaled" else None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*stopped recording.*")
        with lsviz.record(watched, tmp_path / "run", scaler=given, every=every) as rec:
            assert run(watched, rec, scaler) == expected
    for a, b in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    found = lsviz.open_run(tmp_path / "run")
    assert found.status.state == "finished"
    assert found.steps()["loss"].tolist() == pytest.approx(expected)
    assert found.recorded_steps() == list(range(0, STEPS, every))
    names = set(found.exponents()["tensor"])
    assert {"embed.weight", "norm.bias", "twice.weight"} <= names
    assert not any("frozen.weight" in name or "_orig_mod" in name or "module" in name for name in names)
    assert ("embed" in names) == (not wrap.startswith("compile"))


def hooks_left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in model.modules()) + sum(
        len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()
    )


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    from torch.optim.optimizer import _global_optimizer_post_hooks

    before = len(_global_optimizer_post_hooks)
    model = Net()
    with lsviz.record(model, tmp_path / "run") as rec:
        assert hooks_left(model) > 0
        plain(model, rec)
    assert hooks_left(model) == 0
    assert len(_global_optimizer_post_hooks) == before
    assert not rec.active
    rec.step(1.0)  # after its end: nothing
    assert len(lsviz.open_run(rec.path).steps()) == STEPS


def test_the_steps_tell_scale_skips_and_learning_rate(tmp_path: Path) -> None:
    model, scaler, bare = build(), fresh_scaler(), fresh_scaler()
    real: list[float] = []
    torch.manual_seed(1)
    clone = copy.deepcopy(model)
    optimizer = torch.optim.SGD(clone.parameters(), lr=1e-2)
    with lsviz.record(model, tmp_path / "run", scaler=scaler, every=2) as rec:
        scaled(model, rec, scaler)
    # The same S over the same steps from GradScaler itself, without a recorder.
    del optimizer
    clone = build()
    torch.manual_seed(1)
    scales = []
    original = bare.update

    def update(new_scale: Any = None) -> None:
        scales.append(bare.get_scale())
        original(new_scale)
        real.append(bare.get_scale())

    bare.update = update  # type: ignore[method-assign]
    scaled(clone, None, bare)
    steps = lsviz.open_run(rec.path).steps()
    assert steps["loss_scale"].tolist() == scales
    fell = [after < before for before, after in zip(scales, real, strict=True)]
    assert any(fell)
    assert steps["skipped"].tolist() == fell
    assert steps["finite"].tolist() == [not f for f in fell]
    assert set(steps["lr"].dropna()) == {1e-2}
    config = lsviz.open_run(rec.path).config
    assert (config.policy, config.precision) == ("gradscaler:init_scale=4194304,growth_interval=2", "fp16")
    assert (config.task, config.steps, config.record_every) == ("net", STEPS, 2)


def test_weights_are_recorded_as_the_last_backward_left_them(tmp_path: Path) -> None:
    """Accumulated over both batches, and scaled, though the loop unscales, clips and clears them."""
    model, scaler = build(), torch.amp.GradScaler("cpu", init_scale=8.0)
    expected: list[dict[str, Tensor]] = []
    original = scaler.unscale_

    def unscale(optimizer: torch.optim.Optimizer) -> None:
        expected.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        original(optimizer)

    scaler.unscale_ = unscale  # type: ignore[method-assign]
    with lsviz.record(model, tmp_path / "run", scaler=scaler) as rec:
        scaled(model, rec, scaler)
    rows = lsviz.open_run(rec.path).exponents(kind="weight_grad")
    assert len(rows) == STEPS * len(expected[0])
    for row in rows.to_dict("records"):
        assert_row(row, expected[row["step"]][row["tensor"]])
        assert row["loss_scale"] == 8.0


def assert_row(row: Any, values: Tensor) -> None:
    counts, zero, inf, nan, amax = independent_counts(values)
    histogram = ExponentHistogram.from_dict(row)
    assert {int(i) - 80: int(n) for i, n in enumerate(histogram.counts) if n} == counts
    assert (histogram.zero, histogram.inf, histogram.nan, histogram.amax) == (zero, inf, nan, amax)


def test_fp32_rows_are_as_fine_as_a_reference_and_half_ones_are_not(tmp_path: Path) -> None:
    model, scaler = build(), fresh_scaler()
    with lsviz.record(model, tmp_path / "fp32") as rec:
        plain(model, rec)
    assert lsviz.open_run(rec.path).exponents()["ones"].notna().all()
    with lsviz.record(model, tmp_path / "half", scaler=scaler) as rec:
        scaled(model, rec, scaler)
    # Weights' gradients are FP32 tensors whose values went through FP16.
    assert lsviz.open_run(rec.path).exponents()["ones"].isna().all()


def test_modules_choose_what_is_recorded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))

    def tensors(**settings: Any) -> list[str]:
        with lsviz.record(model, tmp_path / "run", **settings) as rec:
            model(torch.randn(3, 4)).sum().backward()
            rec.step()
        return list(lsviz.open_run(rec.path).exponents()["tensor"])

    weights = ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]
    assert tensors() == ["0", "0.0", "0.1", "1", *weights]
    assert tensors(modules=["0.*"]) == ["0.0", "0.1", "0.0.weight", "0.0.bias"]
    assert tensors(modules=["1"], weights=False) == ["1"]
    assert tensors(activations=False) == weights
    assert tensors(every=0) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": -1}, "every: a whole number from 0 on"),
        ({"every": 1.5}, "every: a whole number"),
        ({"modules": ["nosuch.*"]}, "'nosuch.*' matches none; there are embed, norm"),
        ({"modules": "embed"}, r"a list of patterns is needed, as \['embed'\]"),
        ({"scaler": "auto"}, "str tells no loss scale"),
        ({"scaler": 0}, "must be a positive number"),
        ({"scaler": float("nan")}, "must be a positive number"),
        ({"path": ""}, "names no folder"),
    ],
)
def test_arguments_that_can_not_be_used_are_told_at_once(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    values = {"path": tmp_path / "run", **arguments}
    with pytest.raises(UserError, match=message):
        lsviz.record(Net(), **values)
    with pytest.raises(UserError, match=r"torch\.nn\.Module is needed"):
        lsviz.record(lambda x: x, tmp_path / "run")  # type: ignore[arg-type]


def test_a_folder_that_is_taken_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for _ in range(3):
        with lsviz.record(Net(), tmp_path / "mine") as rec:
            rec.step(1.0)
            rec.step(1.0)
        paths.append(rec.path.name)
    assert paths == ["mine", "mine-2", "mine-3"]
    told = capsys.readouterr().err.splitlines()
    assert told == [f"lsviz: recorded 2 steps in {tmp_path / name}" for name in paths]
    (tmp_path / "file").write_text("kept")
    with lsviz.record(Net(), tmp_path / "file") as rec:
        rec.step(1.0)
    assert rec.path.name == "file-2"
    assert (tmp_path / "file").read_text() == "kept"


def test_an_exception_in_the_loop_ends_the_run_as_failed(tmp_path: Path) -> None:
    def fail(error: BaseException, name: str) -> None:
        with lsviz.record(Net(), tmp_path / name) as rec:
            rec.step(0.5)
            raise error

    with pytest.raises(RuntimeError, match="boom"):
        fail(RuntimeError("boom"), "failed")
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt(), "cancelled")
    failed = lsviz.open_run(tmp_path / "failed")
    assert (failed.status.state, failed.status.error) == ("failed", "RuntimeError: boom")
    assert len(failed.steps()) == 1
    assert lsviz.open_run(tmp_path / "cancelled").status.state == "cancelled"


def test_a_model_may_be_copied_and_saved_while_it_is_recorded(tmp_path: Path) -> None:
    model = build()
    with lsviz.record(model, tmp_path / "run") as rec:
        copied = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        loss_of(copied, torch.randn(16, 6)).backward()  # counts for nothing
        loss_of(model, torch.randn(16, 6)).backward()
        rec.step()
    embed = lsviz.open_run(rec.path).exponents(tensor="embed")
    assert embed["numel"].tolist() == [16 * 8]
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert loaded(torch.randn(16, 6))["out"].shape == (16, 8)


def test_evaluation_between_steps_counts_for_nothing(tmp_path: Path) -> None:
    model = build()
    with lsviz.record(model, tmp_path / "run") as rec:
        with torch.no_grad():
            model(torch.randn(16, 6))
        model(torch.randn(16, 6))  # a graph that nobody goes back through
        loss_of(model, torch.randn(16, 6)).backward()
        rec.step(metric=0.25)
    run = lsviz.open_run(rec.path)
    assert run.exponents(tensor="embed")["numel"].tolist() == [16 * 8]
    assert run.steps()["metric"].tolist() == [0.25]
    assert run.status.metric == 0.25


def test_a_step_without_backward_has_a_row_and_no_counts(tmp_path: Path) -> None:
    with lsviz.record(Net(), tmp_path / "run") as rec:
        rec.step()
    run = lsviz.open_run(rec.path)
    assert run.steps()["loss"].isna().tolist() == [True]
    assert run.exponents().empty


def test_a_fused_optimizer_that_skips_by_itself_is_told(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with lsviz.record(layer, tmp_path / "run", scaler=scaler, every=0) as rec:
        for factor in (1.0, float("inf"), 1.0):
            loss = layer(torch.randn(3, 4)).sum() * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            rec.step(1.0)
    steps = lsviz.open_run(rec.path).steps()
    assert steps["skipped"].tolist() == [False, True, False]
    assert steps["loss_scale"].tolist() == [1024, 1024, 512]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_recording_on_a_gpu_waits_for_it_only_when_it_writes(tmp_path: Path) -> None:
    model = build().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda")
    inputs = [x.cuda() for x in batches()]
    with lsviz.record(model, tmp_path / "run", scaler=scaler) as rec:
        rec._interval = 1e9
        for i, x in enumerate(inputs):
            with torch.autocast("cuda", dtype=torch.float16):
                loss = loss_of(model, x)
            torch.cuda.set_sync_debug_mode("error" if i > 1 else "default")
            scaler.scale(loss).backward()
            torch.cuda.set_sync_debug_mode("default")
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            torch.cuda.set_sync_debug_mode("error" if i > 1 else "default")
            rec.step(loss)
            torch.cuda.set_sync_debug_mode("default")
    run = lsviz.open_run(rec.path)
    assert run.recorded_steps() == list(range(len(inputs)))
    assert run.record.device == "cuda"

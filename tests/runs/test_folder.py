"""Writing and reading a run folder."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lsviz.exponents import ExponentHistogram
from lsviz.runs import compaction
from lsviz.runs.compaction import compact
from lsviz.runs.config import RunConfig
from lsviz.runs.files import RunFolderError
from lsviz.runs.reader import Run, RunError, open_run
from lsviz.runs.schema import BY_STEP, EXPONENTS_SCHEMA, STEPS_SCHEMA, ExponentRow, StepRow
from lsviz.runs.writer import RunWriter, create_run

CONFIG = RunConfig.build(task="sigmoid-mlp", policy="constant:8", steps=6)
TENSORS = ("layer1", "layer2", "layer1.weight")


def step_row(step: int, loss: float = 1.0) -> StepRow:
    return StepRow(step, loss, None, 8.0, True, False, 0.1, 2.0, 3.0, 0.5)


def histogram_of(step: int, tensor: str) -> ExponentHistogram:
    return ExponentHistogram.of(np.random.default_rng(step * 10 + TENSORS.index(tensor)).normal(size=50))


def exponent_rows(step: int) -> list[ExponentRow]:
    rows = []
    for tensor in TENSORS:
        kind = "weight_grad" if "." in tensor else "activation_grad"
        for reference in (False, True):
            scale = 1.0 if reference else 8.0
            rows.append(ExponentRow(step, tensor, kind, reference, scale, histogram_of(step, tensor)))
    return rows


def write(root: Path, steps: int = 6) -> RunWriter:
    writer = RunWriter(create_run(root, CONFIG))
    writer.__enter__()
    for step in range(steps):
        writer.append(step_row(step), exponent_rows(step))
        writer.flush()
    return writer


def corrupt_page(part: Path) -> None:
    """Change a byte that a plain read does not notice: only the page's checksum tells."""
    whole = part.read_bytes()
    for place in range(60, len(whole)):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            pq.read_table(part)
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            continue
        try:
            pq.read_table(part, page_checksum_verification=True)
        except OSError:
            return
    raise AssertionError("no such byte")


def test_a_new_folder_holds_run_and_status(tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    assert sorted(p.name for p in path.iterdir()) == ["run.json", "status.json"]
    run = open_run(path)
    assert run.config == CONFIG
    assert run.status.state == "queued"
    assert run.run_id == path.name == run.record.run_id


def test_live_parts_and_the_whole_read_the_same(tmp_path: Path) -> None:
    writer = write(tmp_path)
    run = Run(writer.path)
    live_steps, live_exponents = run.steps(), run.exponents()
    assert run.status.state == "running"
    assert run.status.pid == os.getpid()
    assert len(list(writer.path.glob("*-0*.parquet"))) == 12
    writer.end("finished")
    assert sorted(p.name for p in writer.path.iterdir()) == [
        "amax.parquet",
        "exponents.parquet",
        "outcomes.parquet",
        "run.json",
        "status.json",
        "steps.parquet",
    ]
    pd.testing.assert_frame_equal(run.steps(), live_steps)
    keys = ["tensor", "kind", "reference", "step"]
    pd.testing.assert_frame_equal(
        run.exponents().sort_values(keys, ignore_index=True),
        live_exponents.sort_values(keys, ignore_index=True),
    )
    assert run.status.state == "finished"
    assert run.status.pid is None


def test_histograms_come_back_exactly(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.end("finished")
    for _, row in Run(writer.path).exponents().iterrows():
        histogram = ExponentHistogram.from_dict(row.to_dict())
        assert histogram == histogram_of(row["step"], row["tensor"])


def test_putting_together_again_loses_nothing(tmp_path: Path) -> None:
    writer = write(tmp_path)
    last = {table: writer.path / f"{table}-000005.parquet" for table in ("steps", "exponents")}
    kept = {path: path.read_bytes() for path in last.values()}
    writer.end("finished")
    for path, content in kept.items():
        path.write_bytes(content)  # as if the removal of the parts had been cut short
    compact(writer.path)
    run = Run(writer.path)
    assert len(run.steps()) == 6
    assert run.recorded_steps() == list(range(6))
    assert not list(writer.path.glob("*-0*.parquet"))


def test_one_tensors_history_is_one_row_group(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.end("finished")
    file = pq.ParquetFile(writer.path / "exponents.parquet")
    groups = [file.read_row_group(i)["tensor"].to_pylist() for i in range(file.num_row_groups)]
    assert [set(g) for g in groups] == [{t} for t in TENSORS]
    only = Run(writer.path).exponents(tensor="layer2", steps=[2, 4], columns=["step", "numel", "reference"])
    assert only.columns.tolist() == ["step", "numel", "reference"]
    assert sorted(only["step"]) == [2, 2, 4, 4]
    assert Run(writer.path).recorded_steps() == list(range(6))


def test_tensors_keep_the_order_in_which_they_were_recorded(tmp_path: Path) -> None:
    names = [f"transformer.h.{i}.mlp.{part}.weight" for i in range(40) for part in ("c_fc", "c_proj", "ln")]
    histogram = ExponentHistogram.of([1.0])
    with RunWriter(create_run(tmp_path, CONFIG)) as writer:
        for step in range(3):
            rows = [ExponentRow(step, name, "weight_grad", False, 8.0, histogram) for name in names]
            writer.append(step_row(step), rows)
    assert list(dict.fromkeys(open_run(writer.path).exponents()["tensor"])) == names


def test_a_long_run_reads_one_step_from_a_file_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BY_STEP_FROM", 20)
    monkeypatch.setattr(compaction, "BY_STEP_ROWS", 7)  # a step's rows lie in two row groups
    monkeypatch.setattr(compaction, "ROWS_AT_ONCE", 13)
    writer = write(tmp_path)
    live = open_run(writer.path).exponents()
    writer.end("finished")
    by_step = pq.ParquetFile(writer.path / BY_STEP)
    assert by_step.metadata.num_rows == len(live)
    assert by_step.num_row_groups > 3
    assert by_step.read()["step"].to_pylist() == sorted(live["step"])
    run = open_run(writer.path)
    whole = run.exponents()
    assert len(whole) == len(live)
    for steps, kind in (([3], None), ([4, 1], "weight_grad"), ([99], None)):
        expected = whole[whole["step"].isin(steps) & ((kind is None) | (whole["kind"] == kind))]
        found = run.exponents(steps=steps, kind=kind)
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_dtype=not found.empty)
    few = run.exponents(steps=[3], columns=["amax", "step"])
    assert few.columns.tolist() == ["amax", "step"]
    assert len(few) == 6

    expected = run.exponents(steps=[3])
    by_step_file = writer.path / BY_STEP
    by_step_file.write_bytes(b"PAR1 torn")  # all of it is in exponents.parquet too
    pd.testing.assert_frame_equal(run.exponents(steps=[3]), expected)
    by_step_file.unlink()
    pd.testing.assert_frame_equal(run.exponents(steps=[3]), expected)
    assert not run.problems


def test_a_file_by_step_of_a_time_before_does_not_stay(tmp_path: Path) -> None:
    writer = write(tmp_path)
    (writer.path / BY_STEP).write_bytes((writer.path / "exponents-000001.parquet").read_bytes())
    writer.end("finished")
    assert not (writer.path / BY_STEP).exists()
    assert len(open_run(writer.path).exponents(steps=[3])) == 6


def test_a_disk_that_is_full_at_the_end_leaves_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise RunFolderError("can't write exponents.parquet: is the disk full?")

    writer = write(tmp_path)
    monkeypatch.setattr("lsviz.runs.writer.compact", full)
    writer.end("finished")
    run = open_run(writer.path)
    assert run.status.state == "finished"
    assert run.recorded_steps() == list(range(6))


@pytest.mark.parametrize("ended", [False, True])
def test_filters_give_the_same_live_and_ended(ended: bool, tmp_path: Path) -> None:
    writer = write(tmp_path)
    if ended:
        writer.end("finished")
    run = Run(writer.path)
    assert set(run.exponents(kind="weight_grad")["tensor"]) == {"layer1.weight"}
    assert len(run.exponents(tensor="layer1", kind="activation_grad", steps=[3])) == 2
    assert run.exponents(tensor="nothing").empty


def test_plain_pandas_reads_the_tables_without_lsviz(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.end("finished")
    assert pd.read_parquet(writer.path / "steps.parquet").columns.tolist() == STEPS_SCHEMA.names
    exponents = pd.read_parquet(writer.path / "exponents.parquet")
    assert exponents.columns.tolist() == EXPONENTS_SCHEMA.names
    totals = exponents["counts"].map(sum) + exponents[["zero", "inf", "nan"]].sum(axis=1)
    assert (totals == exponents["numel"]).all()


def test_an_exception_marks_the_run_failed_and_keeps_its_rows(tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)

    def fail() -> None:
        with RunWriter(path) as writer:
            writer.append(step_row(0), exponent_rows(0))
            raise RuntimeError("boom\nsecond line")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    run = open_run(path)
    assert run.status.state == "failed"
    assert run.status.error == "RuntimeError: boom\nsecond line"
    assert len(run.steps()) == 1


def test_json_stays_strict_when_numbers_are_not_finite(tmp_path: Path) -> None:
    with RunWriter(create_run(tmp_path, CONFIG)) as writer:
        writer.append(step_row(0, loss=math.nan), [])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for name in ("run.json", "status.json"):
        json.loads((writer.path / name).read_text(), parse_constant=refuse)
    assert Run(writer.path).status.loss is None
    assert math.isnan(Run(writer.path).steps()["loss"].iloc[0])


def test_a_broken_part_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    writer = write(tmp_path)
    (writer.path / "steps-000002.parquet").write_bytes(b"PAR1 torn")
    corrupt_page(writer.path / "exponents-000001.parquet")
    run = Run(writer.path)
    assert run.steps()["step"].tolist() == [0, 1, 3, 4, 5]
    assert run.recorded_steps() == [0, 2, 3, 4, 5]
    assert any("steps-000002.parquet can't be read" in p for p in run.problems)
    assert any("exponents-000001.parquet can't be read" in p for p in run.problems)


def test_a_corrupt_part_is_not_put_together_with_a_fresh_checksum(tmp_path: Path) -> None:
    writer = write(tmp_path)
    part = writer.path / "exponents-000001.parquet"
    corrupt_page(part)
    with pytest.raises(OSError, match="CRC"):
        compact(writer.path)
    assert part.exists()
    assert not (writer.path / "exponents.parquet").exists()
    writer.end("finished")
    run = Run(writer.path)
    assert run.status.state == "finished"
    assert len(run.steps()) == 6
    assert run.recorded_steps() == [0, 2, 3, 4, 5]
    assert any("exponents-000001.parquet can't be read" in p for p in run.problems)


def test_a_reader_that_lists_half_removed_parts_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write(tmp_path)
    listed = Path.glob

    def end_then_list(path: Path, pattern: str) -> list[Path]:
        # The run ends after the reader saw no whole file; one part is still there when it lists.
        if pattern == "steps-*.parquet" and not writer._ended:
            kept = (path / "steps-000005.parquet").read_bytes()
            writer.end("finished")
            (path / "steps-000005.parquet").write_bytes(kept)
        return list(listed(path, pattern))

    monkeypatch.setattr(Path, "glob", end_then_list)
    assert len(Run(writer.path).steps()) == 6


def test_leftovers_of_a_torn_write_are_not_read(tmp_path: Path) -> None:
    writer = write(tmp_path)
    (writer.path / ".steps-000009.parquet.tmp").write_bytes(b"half")
    run = Run(writer.path)
    assert len(run.steps()) == 6
    assert not run.problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run.json is missing"),
        ("{", "run.json is broken"),
        ('{"run_id": "x"}', "run.json is broken"),
        ("[" * 100_000, "run.json is broken"),
        (" " * 1_000_001, "too large to be one of ours"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    if content is None:
        (path / "run.json").unlink()
    else:
        (path / "run.json").write_text(content)
    with pytest.raises(RunError) as error:
        open_run(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_of_a_newer_lsviz_says_so(tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG)
    document = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**document, "schema_version": 99}))
    with pytest.raises(RunError, match=r"newer lsviz \(schema 99\); this one reads up to 1"):
        open_run(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*nowhere"):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("root", ["/proc/lsviz", "/dev/null"])
def test_a_root_that_can_not_be_written_leaves_nothing(root: str) -> None:
    with pytest.raises(RunFolderError, match=r"can't write runs to .* choose a folder that you can write to"):
        create_run(Path(root), CONFIG)
    assert not Path("/proc/lsviz").exists()


def test_an_empty_run_has_empty_tables(tmp_path: Path) -> None:
    run = open_run(create_run(tmp_path, CONFIG))
    assert run.steps().columns.tolist() == STEPS_SCHEMA.names
    assert run.exponents().empty
    assert run.log_tail() == ""

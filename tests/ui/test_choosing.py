from __future__ import annotations

from pathlib import Path

from lsviz.runs.labelling import set_labels
from lsviz.runs.labels import Labels
from lsviz.runs.reader import Run, open_run
from lsviz.runs.schema import OWN_LOOP
from lsviz.runs.writer import RunWriter, create_run
from lsviz.ui.choosing import run_options
from tests.runs.test_store import CONFIG


def new_run(root: Path, **changes: object) -> Run:
    with RunWriter(create_run(root, CONFIG.model_copy(update=changes))) as writer:
        return open_run(writer.path)


def options(*runs: Run) -> list[str]:
    return list(run_options(runs, lambda run: (run.config.policy, run.config.task)).values())


def test_a_run_that_nothing_is_like_needs_no_more_words(tmp_path: Path) -> None:
    one, other = new_run(tmp_path, policy="none"), new_run(tmp_path, policy="constant:8")
    assert options(one, other) == [f"none · {CONFIG.task}", f"constant:8 · {CONFIG.task}"]


def test_only_what_tells_runs_apart_is_added(tmp_path: Path) -> None:
    seeds = [new_run(tmp_path, policy="none", seed=seed) for seed in (0, 1)]
    assert [line.rsplit(" · ", 1)[1] for line in options(*seeds)] == ["seed 0", "seed 1"]
    alone = new_run(tmp_path, policy="jmp")
    assert "seed" not in options(*seeds, alone)[2]
    same = [new_run(tmp_path, policy="tf") for _ in range(2)]
    told = options(*same)
    assert told[0] != told[1]
    assert all(line.endswith(run.run_id[-4:]) for line, run in zip(told, same, strict=True))


def test_a_recorded_loop_is_called_as_its_folder(tmp_path: Path) -> None:
    path = create_run(tmp_path, CONFIG, "mine", engine=OWN_LOOP)
    with RunWriter(path):
        assert options(open_run(path))[0].startswith("mine · ")


def test_a_persons_name_for_it_comes_first(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    set_labels(run, Labels.build(name="the good one", tags=[], pinned=False))
    assert options(run)[0].startswith("the good one · ")

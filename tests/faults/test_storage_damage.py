"""Whatever becomes of a file's bytes: what is read is what was written, or it is missing and named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lsviz.errors import UserError
from lsviz.runs import compaction
from lsviz.runs.reader import Run
from tests.faults.rows import TABLES, cells, read_tables, surplus, write_run

Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def flip(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]


def overwrite(content: bytes, chance: random.Random) -> bytes:
    """What a disk does: a piece of zeros, or of something else."""
    place, length = chance.randrange(len(content)), chance.choice((4, 64, 512))
    piece = b"\0" * length if chance.random() < 0.5 else chance.randbytes(length)
    return (content[:place] + piece + content[place + length :])[: len(content)]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run of parts, an ended one, and one with a file by step of many row groups."""
    root = tmp_path_factory.mktemp("layouts")
    with pytest.MonkeyPatch.context() as patch:
        runs = [write_run(root, 6, end=False), write_run(root, 12, each=4)]
        patch.setattr(compaction, "BY_STEP_FROM", 20)
        patch.setattr(compaction, "BY_STEP_ROWS", 9)
        runs.append(write_run(root, 12, each=4))
    return runs


def ask(run: Run) -> dict[str, list[tuple[object, ...]]]:
    """Read a run in every way that there is."""
    found = {name: cells(frame) for name, frame in read_tables(run).items()}
    found["one tensor"] = cells(run.exponents(tensor="block1"))
    found["one step"] = cells(run.exponents(steps=[3, 5]))
    found["one kind"] = cells(run.exponents(kind="weight_grad", reference=True, columns=["step", "amax"]))
    found["recorded"] = [(step,) for step in run.recorded_steps()]
    return found


def damage_and_read(runs: list[Run], times: int, damage: Damage, seed: int, place: Path) -> tuple[int, int]:
    """Damage one file of a run after another; return how often nothing was missing, and how often it was."""
    chance = random.Random(seed)
    expected = [ask(run) for run in runs]
    whole = missing = 0
    for turn in range(times):
        number = turn % len(runs)
        copy = place / f"{turn}"
        shutil.copytree(runs[number].path, copy)
        file = chance.choice(sorted(p for p in copy.iterdir() if p.suffix == ".parquet"))
        content = file.read_bytes()
        file.write_bytes(damage(content, chance))
        run = Run(copy)
        found = ask(run)
        for name, rows in expected[number].items():
            assert not surplus(found[name], set(rows)), (turn, file.name, name)
            if name in TABLES and set(found[name]) != set(rows):
                assert any(file.name in problem for problem in run.problems), (turn, file.name, name)
        if found == expected[number]:
            whole += 1
        else:
            missing += 1
            assert all("\n" not in problem for problem in run.problems)
        shutil.rmtree(copy)
    return whole, missing


def test_damaged_files_are_named_and_what_is_whole_is_read(layouts: list[Run], tmp_path: Path) -> None:
    assert sum(damage_and_read(layouts, 36, cut, 1, tmp_path)) == 36
    assert damage_and_read(layouts, 36, flip, 2, tmp_path)[1] > 10
    assert damage_and_read(layouts, 18, overwrite, 3, tmp_path)[1] > 5


def test_of_an_ended_run_the_damaged_tensor_alone_is_missing(layouts: list[Run], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(layouts[1].path, copy)
    file = copy / "exponents.parquet"
    content = bytearray(file.read_bytes())
    content[1000] ^= 16
    file.write_bytes(content)
    run = Run(copy)
    assert set(run.exponents()["tensor"]) == {"block1.weight", "head"}
    assert run.problems == [
        "exponents.parquet is damaged: block1 activation_grad is left out (its checksum (CRC) is another)"
    ]
    assert len(Run(copy).exponents(tensor="head")) == 24


def test_no_bit_of_a_footer_or_a_seal_moves_or_hides_a_row(layouts: list[Run], tmp_path: Path) -> None:
    chance = random.Random(5)
    written = cells(layouts[1].steps())
    copy = tmp_path / "run"
    shutil.copytree(layouts[1].path, copy)
    file = copy / "steps.parquet"
    content = file.read_bytes()
    for place in range(len(content) - 3_000, len(content), 17):
        bit = 1 << chance.randrange(8)
        file.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        run = Run(copy)
        found = cells(run.steps())
        assert found == written or run.problems, (place, bit)
        assert not surplus(found, set(written)), (place, bit)


@pytest.mark.parametrize("name", ["run.json", "status.json"])
def test_damaged_json_is_told_in_one_line(name: str, layouts: list[Run], tmp_path: Path) -> None:
    chance = random.Random(4)
    for turn in range(100):
        copy = tmp_path / f"{turn}"
        copy.mkdir()
        for kept in ("run.json", "status.json"):
            shutil.copy(layouts[1].path / kept, copy)
        change = chance.choice((cut, flip, overwrite))
        (copy / name).write_bytes(change((copy / name).read_bytes(), chance))
        told = ""
        try:
            _ = Run(copy).record, Run(copy).status
        except UserError as error:
            told = str(error)
        assert "\n" not in told


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("damage", "times"), [(cut, 600), (flip, 400), (flip, 2000), (overwrite, 600)])
def test_hundreds_of_damaged_files(damage: Damage, times: int, layouts: list[Run], tmp_path: Path) -> None:
    whole, missing = damage_and_read(layouts, times, damage, times, tmp_path)
    assert missing > times / 4
    print(
        f"{damage.__name__}: {whole} of {times} read as written, {missing} with something missing and named"
    )

"""The documentation: its links lead somewhere, what it says to type works, the reference is fresh."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

import lsviz
from lsviz.runs.store import RunStore
from tests.commands import forked
from tests.conftest import PATIENCE, REPOSITORY, clean_environment

DOCS = REPOSITORY / "docs"
TEXTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for path in DOCS.rglob("*.md"):
        assert f"({path.relative_to(REPOSITORY)})" in readme, path


def test_the_reference_is_what_the_program_says() -> None:
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "import reference as r; import json; print(json.dumps({n: p() for n, p in r.PAGES.items()}))",
        ],
        cwd=DOCS,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for name, page in json.loads(made.stdout).items():
        assert (DOCS / "reference" / f"{name}.md").read_text().rstrip() == page.rstrip(), (
            "run: python docs/reference.py"
        )


def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    text = (DOCS / "tutorial.md").read_text()
    (script,) = blocks(text, "python")
    (tmp_path / "mine.py").write_text(script)
    lines = [line.split("#")[0].strip() for block in blocks(text, "sh") for line in block.splitlines()]
    typed = [line for line in lines if line and line not in ("make app", "source .venv/bin/activate")]
    assert [line.split()[0] for line in typed] == ["lsviz", "lsviz", "lsviz", "lsviz", "python", "lsviz"]
    printed: list[str] = []
    for line in typed:
        if " RUN" in line:
            (run,) = (p.name for p in (tmp_path / "runs").iterdir() if (p / "run.json").exists())
            assert run in printed[1], "lsviz list names it"
            line = line.replace(" RUN", f" {run}")
        command = [sys.executable, "-m", *line.split()] if line.startswith("lsviz") else line.split()
        command[0] = sys.executable
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, (line, done.stderr)
        printed.append(done.stdout)
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
    recorded = lsviz.open_run(tmp_path / "runs" / "mine")
    assert recorded.status.state == "finished"
    assert recorded.recorded_steps() == list(range(0, 100, 10))


def test_the_commands_of_the_docs_exist() -> None:
    known = set(re.findall(r"^## lsviz (\S+)$", (DOCS / "reference" / "cli.md").read_text(), re.M))
    for path in TEXTS:
        for block in blocks(path.read_text(), "sh"):
            for name in re.findall(r"^(?:[A-Z_]+=\S+ )*lsviz (\S+)", block, re.M):
                assert name in known, (path.name, name)


SHORTER = {"run": "--steps 4", "sweep": "--steps 22 --seeds 0", "reproduce": "--help", "lab": "--help"}
"""So that all that trains takes seconds; a command with --help still refuses an option that it has not."""
NOT_TYPED = ("lsviz dash", "--engine ray", "$SLURM")
"""What the tests of the dashboard and of Ray run, and a line of Slurm's."""


def commands_of(text: str) -> list[str]:
    """Return the lines that begin with lsviz, joined where they go on, without remarks and pipes."""
    lines = [line for block in blocks(text.replace("\\\n", " "), "sh") for line in block.splitlines()]
    typed = [re.split(r"\s#|\s\|", line)[0].strip() for line in lines if line.startswith("lsviz ")]
    return [line for line in typed if not any(words in line for words in NOT_TYPED)]


def test_every_command_of_the_docs_works(tmp_path: Path) -> None:
    samples = RunStore.at(REPOSITORY / "sample_runs").list_runs()
    skipping, *_ = (run.run_id for run in samples if run.status.skipped_steps and not run.config.inject)
    faulty, *_ = (run.run_id for run in samples if run.config.inject)
    (tmp_path / "amp.jsonl").write_text('{"step": 0, "scale": 65536.0}\n{"step": 1, "scale": 32768.0}\n')
    with SummaryWriter(tmp_path / "logs" / "my-run") as writer:
        writer.add_histogram("grad/layer1", np.float32([2.0**-20, 2.0**-30, 1.0]), 0)
    train = "run --task digits-mlp --policy none --steps 4 --check-update --out runs --json"
    trained = forked(*shlex.split(train), cwd=tmp_path)
    own = json.loads(trained.stdout)["run_id"]
    lines = list(dict.fromkeys(line for path in TEXTS for line in commands_of(path.read_text())))
    assert len(lines) > 30
    for line in sorted(lines, key=lambda line: "lsviz rm" in line):
        name = line.split()[1]
        run = own if name in ("updates", "rm") else faulty if name == "react" else skipping
        words = re.sub(r"\bRUN\d?\b|runs/mine", run, line)
        words = words.replace("parts/*/2*/ --runs runs", f"runs/{own} --runs elsewhere")
        words = words.replace("lsviz rm", "lsviz rm --yes")
        done = forked(*shlex.split(words)[1:], *SHORTER.get(name, "").split(), cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)

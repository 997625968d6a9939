"""What the processes of these tests do: write a run, and say how far the writer's word goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from lsviz.runs.writer import RunWriter, create_run
from tests.faults.rows import CONFIG, append_step


def write_steps(path: str, told: str, steps: str, each: str) -> None:
    """Write so many steps and end; the number of acknowledged steps goes into a file, in full lines."""
    word = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with RunWriter(Path(path)) as writer:
        for step in range(int(steps)):
            append_step(writer, step)
            if step % int(each) == int(each) - 1:
                writer.flush()
                os.write(word, f"{step + 1}\n".encode())
        os.write(word, b"ends\n")
    os.write(word, b"ended\n")


def write_and_die(path: str, told: str, steps: str, each: str, moment: str) -> None:
    """Do the same, and be killed before the file is opened, renamed or removed that is the moment's turn."""
    left = int(moment)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove") and path in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write_steps(path, told, steps, each)


def acknowledged(told: Path) -> int:
    """Return how many steps the writer said it had written."""
    try:
        words = told.read_text().split()
    except FileNotFoundError:
        return 0
    return max((int(word) for word in words if word.isdigit()), default=0)


def write_with_a_child(path: str, told: str) -> None:
    """Write, with a forked child that sleeps for ever, and tell its number."""
    with RunWriter(Path(path)) as writer:
        append_step(writer, 0)
        writer.flush()
        child = os.fork()
        if not child:
            while True:
                signal.pause()
        Path(told).write_text(str(child))
        signal.pause()


def write_with_jumps(path: str, told: str, steps: str, each: str, hours: str) -> None:
    """Write steps while the wall clock jumps to and fro at every look at it; and make runs meanwhile."""
    true_time, looks = time.time, 0

    def jumping() -> float:
        nonlocal looks
        looks += 1
        return true_time() + (float(hours) * 3600 if looks % 2 else -float(hours) * 1800)

    time.time = jumping
    write_steps(path, told, steps, each)
    made = [create_run(Path(path).parent, CONFIG).name for _ in range(20)]
    Path(f"{told}.ids").write_text(json.dumps(made))

"""Imports mutated runs within a bound of memory: run as a process of its own, it tells what came of them."""

from __future__ import annotations

import io
import json
import random
import resource
import sys
import time
from pathlib import Path

from lsviz.errors import UserError
from lsviz.runs.exchange import import_zip
from lsviz.runs.inspector import Inspector
from lsviz.runs.store import RunStore
from tests.faults.mutating import mutated
from tests.faults.rows import read_tables

MEMORY = 3 << 30


def main(source: str, place: str, first: str, number: str) -> None:
    """Import so many mutated runs, and read whatever is let in; print how many were, and the slowest."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with Inspector() as inspector:
        import_all(source, place, int(first), int(number), inspector)


def import_all(source: str, place: str, first: int, number: int, inspector: Inspector) -> None:
    runs = [
        {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
        for folder in sorted(Path(source).iterdir())
    ]
    root = Path(place)
    store = RunStore.at(root)
    came = 0
    slowest = 0.0
    reasons: dict[str, int] = {}
    for seed in range(first, first + number):
        chance = random.Random(seed)
        data = mutated(chance.choice(runs), chance)
        started = time.monotonic()
        try:
            run = import_zip(io.BytesIO(data), store, "x.zip", inspector)
        except UserError as error:
            told = str(error)
            if "\n" in told:
                raise AssertionError(f"seed {seed}: {told}") from error
            if "not survived" in told:
                print(f"seed {seed}: {told}", file=sys.stderr)
            reason = " ".join(word for word in told.split()[5:9] if word.isalpha())
            reasons[reason] = reasons.get(reason, 0) + 1
            assert not list(root.iterdir()), seed
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
        else:
            came += 1
            try:
                _ = run.record, run.status, run.labels, run.log_tail(), run.recorded_steps()
                read_tables(run)
                run.exponents(tensor="block1")
                run.exponents(steps=[1, 2])
                assert not run.problems, run.problems
            except BaseException:
                print(f"seed {seed}", file=sys.stderr)
                raise
            for path in run.path.iterdir():
                path.unlink()
            run.path.rmdir()
        slowest = max(slowest, time.monotonic() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"came": came, "refused": reasons, "slowest_s": round(slowest, 2), "peak_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])

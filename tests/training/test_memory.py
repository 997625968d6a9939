"""Freed memory stays with the process: seen by the pages that the system has to clear."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from lsviz.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = [torch.ones(2**20 * 12), torch.ones(2**20 * 12)]
    del large
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_steps_find_the_memory_of_the_step_before() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    # 96 MB a step are 24,000 pages, of 4 kB.
    assert faults("kept") < 1000 < faults("as it is")

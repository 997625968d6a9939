"""Building and loading the compiled loops: once a machine, never to a training's harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsviz.training import kernels
from lsviz.training.kernels import KernelError, load_kernels
from tests.conftest import PATIENCE

COUNT = (
    "import torch; from lsviz.training.counting import count_exponents, kernel_description;"
    "assert count_exponents(torch.tensor([1.0, 0.0, 0.5])).zero == 1; print(kernel_description())"
)
COUNT_WITHOUT_BUILDING = (
    "import subprocess; subprocess.run = None; from lsviz.training.kernels import load_kernels;"
    "load_kernels(); print('loaded')"
)


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def libraries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "lsviz").iterdir())


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    assert "compiled loops" in python(COUNT, XDG_CACHE_HOME=str(tmp_path))
    (library,) = libraries(tmp_path)
    assert python(COUNT_WITHOUT_BUILDING, XDG_CACHE_HOME=str(tmp_path)) == "loaded\n"
    assert libraries(tmp_path) == [library]
    assert (tmp_path / "lsviz").stat().st_mode & 0o077 == 0


def test_a_broken_library_is_built_again(tmp_path: Path) -> None:
    python(COUNT, XDG_CACHE_HOME=str(tmp_path))
    (library,) = libraries(tmp_path)
    library.write_bytes(library.read_bytes()[:100])
    assert "compiled loops" in python(COUNT, XDG_CACHE_HOME=str(tmp_path))
    assert library.stat().st_size > 1000


def test_without_a_compiler_torch_counts_and_the_doctor_says_why(tmp_path: Path) -> None:
    told = python(COUNT, XDG_CACHE_HOME=str(tmp_path), PATH=str(tmp_path), CC="")
    assert "torch operations" in told
    assert "there is no C compiler (install gcc or clang)" in told


def test_a_compiler_that_fails_is_told(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'cc: out of order' >&2\nexit 1\n")
    compiler.chmod(0o755)
    told = python(COUNT, XDG_CACHE_HOME=str(tmp_path), CC=str(compiler), TMPDIR=str(tmp_path))
    assert "can't build kernels.c: cc: out of order" in told


def test_torch_counts_where_it_is_asked_to() -> None:
    assert "LSVIZ_KERNEL=torch" in python(COUNT, LSVIZ_KERNEL="torch")


def test_a_folder_that_others_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    open_to_all = tmp_path / "cache" / "lsviz"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    folders = list(kernels._folders())
    assert folders == [tmp_path / "tmp" / f"lsviz-{os.getuid()}"]
    folders[0].chmod(0o770)
    load_kernels.cache_clear()
    try:
        with pytest.raises(KernelError, match="no folder to keep the library in"):
            load_kernels()
    finally:
        load_kernels.cache_clear()

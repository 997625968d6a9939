"""The compiled loops of kernels.c: built once with the machine's own C compiler, then loaded.

The library is kept in the user's cache folder under a name made from the source, the compiler and the
processor, so that a second start compiles nothing and another processor compiles its own.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

FP32: Final = 0
FP16: Final = 1
BF16: Final = 2

FIELDS: Final = 256
CLASSES: Final = 8
ONE: Final = CLASSES - 1
"""The class of a mantissa of 0; class i before it: i of the limits are reached."""
JOB: Final = 8
"""Numbers of a job: values, how many, form, limits, table; then largest, inf, done."""

SOURCE: Final = Path(__file__).with_name("kernels.c")
BUILD_SECONDS: Final = 120
_FLAGS: Final = ("-O3", "-std=c11", "-shared", "-fPIC", "-pthread")
_NATIVE: Final = ("-march=native", "-mcpu=native", "")
"""The first that a compiler takes."""


class KernelError(Exception):
    """The loops can't be had; the message says why."""


@cache
def load_kernels() -> Any:
    """Return the library, with `count_beside`, `settle` and `forget` of kernels.c typed.

    Raises:
        KernelError: There is no compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise KernelError("there is no C compiler (install gcc or clang)")
    name = f"kernels-{_fingerprint(compiler)}.so"
    problems = []
    for folder in _folders():
        try:
            return _loaded(folder / name, compiler)
        except (OSError, KernelError, subprocess.SubprocessError) as error:
            problems.append(str(error))
    raise KernelError(problems[0] if problems else "there is no folder to keep the library in")


def _loaded(path: Path, compiler: str) -> Any:
    try:
        return _typed(_built(path, compiler))
    except OSError:
        if not path.exists():
            raise
        path.unlink()  # what is there was cut short, say: a good one takes its place
        return _typed(_built(path, compiler))


def _built(path: Path, compiler: str) -> Path:
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        for native in _NATIVE:
            command = [compiler, *_FLAGS, *([native] if native else []), "-o", str(made), str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            if done.returncode == 0:
                made.replace(path)  # several processes may build it at once: the last one wins
                return path
    reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
    raise KernelError(f"{compiler} can't build kernels.c: {reason}")


def _typed(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    library.count_beside.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    library.settle.argtypes = library.forget.argtypes = []
    library.count_beside.restype = library.settle.restype = library.forget.restype = None
    # Its threads read tensors and write tables that the end of the interpreter takes away.
    atexit.register(library.settle)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=library.forget)
    return library


def _fingerprint(compiler: str) -> str:
    tool = Path(compiler).resolve()
    parts = [SOURCE.read_text(encoding="utf-8"), str(tool), str(tool.stat().st_mtime_ns), *_FLAGS]
    parts += [platform.system(), platform.machine(), _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return what tells processors with other instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _folders() -> Iterator[Path]:
    """Yield folders that nobody else can write to: code is loaded from them."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    user = os.getuid() if hasattr(os, "getuid") else 0
    for folder in (Path(home) / "lsviz", Path(tempfile.gettempdir()) / f"lsviz-{user}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        mine = not hasattr(os, "getuid") or found.st_uid == user
        if mine and stat.S_ISDIR(found.st_mode) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield folder

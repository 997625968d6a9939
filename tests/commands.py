"""The command line in a process of its own, which need not import it again.

A process imports `lsviz.cli` and is forked for every command: arguments, folder, environment, output and exit
code are the command's own, and it begins at once. As a person starts it, ``python -m lsviz``, it is tested in
test_cli.py.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from tests.conftest import REPOSITORY, clean_environment

SERVER = """
import json, os, sys, traceback
from lsviz.cli import main

if sys.argv[1] == "torch":
    import lsviz.training.loop, lsviz.training.tasks.digits
else:
    sys.modules["torch"] = None
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child:
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\\n")
        answers.flush()
        continue
    code = 1
    try:
        for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
            file = os.open(name, os.O_RDWR)
            os.dup2(file, number)
            os.close(file)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        code = main(asked["arguments"])
    except SystemExit as done:
        code = done.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


@functools.cache
def _server(*, torch: bool) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, "torch" if torch else ""],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)  # without more to read it ends
    return server


def forked(
    *arguments: str, cwd: Path, torch: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of lsviz and return what it wrote and its exit code.

    Args:
        arguments: The words after ``lsviz``.
        cwd: The folder in which it runs.
        torch: False for a machine without torch: importing it fails.
        environment: What it has beside this process's own environment.
    """
    server = _server(torch=torch)
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        asked = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": clean_environment(**environment),
            "out": out.name,
            "err": err.name,
        }
        try:
            server.stdin.write(json.dumps(asked) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
        except BaseException:  # such as a test's timeout: the answer to come is nobody's
            server.kill()
            _server.cache_clear()
            raise
        return subprocess.CompletedProcess(arguments, code, read(out), read(err))


def read(file: IO[bytes]) -> str:
    return file.read().decode()

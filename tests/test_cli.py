"""The command line as a person runs it: through a subprocess, the first time from scratch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from lsviz.policies import POLICIES
from lsviz.runs.reader import open_run
from tests.commands import forked
from tests.conftest import PATIENCE, clean_environment

QUICK = ["--task", "digits-mlp", "--steps", "12", "--record-every", "5", "--reference-every", "5"]


def lsviz(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lsviz", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean_environment(**environment),
        timeout=PATIENCE,
        check=False,
    )


def strict(text: str) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no strict JSON")

    return json.loads(text, parse_constant=refuse)


def test_run_prints_one_strict_json_object_last(tmp_path: Path) -> None:
    done = lsviz("run", *QUICK, "--policy", "constant:2^10", "--seed", "5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = strict(done.stdout.splitlines()[-1])
    assert isinstance(summary, dict)
    expected = {
        "run_id", "path", "task", "policy", "precision", "device", "steps", "final_loss", "metric_name",
        "metric", "skipped_steps", "final_loss_scale", "flushed", "ms_per_step", "ms_recording_per_step",
    }  # fmt: skip
    assert expected <= set(summary)
    assert (summary["task"], summary["policy"], summary["precision"]) == (
        "digits-mlp",
        "constant:1024",
        "fp16",
    )
    assert (summary["device"], summary["steps"], summary["skipped_steps"]) == ("cpu", 12, 0)
    assert summary["final_loss_scale"] == 1024
    assert set(summary["flushed"]) >= {"layer1", "layer2", "output", "layer1.weight"}
    run = open_run(summary["path"])
    assert run.run_id == summary["run_id"]
    assert run.path.parent == tmp_path / "runs"
    assert run.status.state == "finished"
    assert run.config.seed == 5
    assert run.recorded_steps() == [0, 5, 10]


def test_run_prints_a_summary_for_people(tmp_path: Path) -> None:
    done = forked("run", *QUICK, "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "final loss scale" in done.stdout
    assert len(list((tmp_path / "here").glob("2*"))) == 1


def test_list_shows_what_was_run(tmp_path: Path) -> None:
    assert "No runs in runs" in lsviz("list", cwd=tmp_path).stdout
    assert strict(forked("list", "--json", cwd=tmp_path).stdout) == []
    forked("run", *QUICK, cwd=tmp_path)
    (row,) = strict(forked("list", "--json", cwd=tmp_path).stdout)  # type: ignore[misc]
    assert (row["task"], row["policy"], row["state"], row["step"]) == ("digits-mlp", "none", "finished", 12)
    table = forked("list", "--runs", str(tmp_path / "runs"), cwd=tmp_path.parent).stdout
    assert row["run_id"] in table
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    again = forked("list", cwd=tmp_path)
    assert row["run_id"] in again.stdout
    assert "run.json is broken" in again.stderr


def test_trace_follows_overflows_and_amax(tmp_path: Path) -> None:
    policy = "gradscaler:init_scale=256,growth_interval=4"
    done = forked("trace", "--policy", policy, "--overflow", "OO....O", "--json", cwd=tmp_path)
    assert strict(done.stdout) == {
        "scales": [128, 64, 64, 64, 64, 128, 64],
        "skipped": [0, 1, 6],
        "raised_at": None,
    }
    (tmp_path / "amax.json").write_text('{"amax": [100, 300, "inf", 1, "nan"]}')
    done = forked("trace", "--policy", policy, "--amax", "amax.json", "--json", cwd=tmp_path)
    assert strict(done.stdout) == {"scales": [256, 128, 64, 64, 32], "skipped": [1, 2, 4], "raised_at": None}
    (tmp_path / "amax.json").write_text('{"amax": ["2^-3", 1e3]}')
    done = forked("trace", "--policy", "none", "--amax", "amax.json", "--json", cwd=tmp_path)
    assert strict(done.stdout) == {"scales": [1, 1], "skipped": [], "raised_at": None}
    plain = forked("trace", "--policy", "none", "--overflow", ".O", cwd=tmp_path).stdout
    assert "overflow, skipped" in plain


def test_trace_tells_where_a_policy_gives_up_and_where_torch_would_corrupt(tmp_path: Path) -> None:
    done = forked("trace", "--policy", "deepspeed:init_scale=2", "--overflow", "OOO.", "--json", cwd=tmp_path)
    assert strict(done.stdout) == {"scales": [2, 1], "skipped": [0, 1, 2], "raised_at": 2}
    assert "deepspeed gives up at step 2: overflow with the loss scale already at its floor" in done.stderr
    done = forked("trace", "--policy", "gradscaler:init_scale=2^-126", "--overflow", "OO.", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: at step 2 S is 2^-128 and 1/S is infinite" in done.stderr
    assert "clean steps 1" in done.stdout


def test_a_long_pattern_comes_from_stdin(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lsviz", "trace", "--policy", "tf", "--overflow", "-", "--json"],
        input="O" + "." * 150_000 + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
        check=False,
    )
    trace = strict(done.stdout)
    assert isinstance(trace, dict)
    assert len(trace["scales"]) == 150_001
    assert trace["scales"][-1] == 2.0 ** (14 + 75)


def test_policies_lists_all_with_rule_and_source(tmp_path: Path) -> None:
    rows = strict(lsviz("policies", "--json", cwd=tmp_path).stdout)
    assert isinstance(rows, list)
    assert [row["name"] for row in rows] == list(POLICIES)
    megatron = next(row for row in rows if row["name"] == "megatron")
    assert megatron["settings"]["init_scale"] == 2**32
    table = forked("policies", cwd=tmp_path).stdout
    assert "settings: init_scale=2^32, growth_factor=2" in table


def test_run_takes_update_rules_and_warns_where_they_are_wrong(tmp_path: Path) -> None:
    rules = ["--policy", "constant:8", "--update", "fold-lr", "--clip", "1", "--clip-order", "scaled"]
    more = [
        "--loss-weight",
        "2^-3",
        "--init-gain",
        "0.5",
        "--l2",
        "0.1",
        "--l2-order",
        "scaled",
        "--on-overflow",
        "retry",
        "--no-master-weights",
    ]
    done = forked("run", *QUICK, *rules, *more, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("lsviz: warning: fold-lr with Adam")
    config = open_run(strict(done.stdout)["path"]).config  # type: ignore[index]
    assert (config.update, config.clip, config.clip_order) == ("fold-lr", 1, "scaled")
    assert (config.l2, config.l2_order, config.on_overflow) == (0.1, "scaled", "retry")
    assert not config.master_weights
    assert (config.loss_weight, config.init_gain) == (0.125, 0.5)
    done = lsviz("run", *QUICK, *rules, "--optimizer", "sgd", "--lr", "0.1", cwd=tmp_path)
    assert done.stderr == ""


def test_doctor_tells_versions_and_engine(tmp_path: Path) -> None:
    report = strict(lsviz("doctor", "--json", cwd=tmp_path).stdout)
    assert isinstance(report, dict)
    assert report["versions"]["torch"]
    assert "FP16" in report["engine"]
    assert report["kernel"].startswith("compiled loops")
    assert report["device"] in ("cpu", "cuda")
    told = forked("doctor", cwd=tmp_path).stdout
    assert "torch" in told
    for extra in report["extras"]:
        assert extra["gives"] in told
        assert extra["get"] is None or extra["get"] in told


ERRORS = [
    (["run", "--task", "foo"], "unknown task 'foo'; choose one of: sigmoid-mlp, digits-mlp"),
    (["run", *QUICK, "--policy", "foo"], "unknown policy 'foo'; choose one of: none, constant, gradscaler"),
    (["run", *QUICK, "--policy", "gradscaler:x=1"], "gradscaler has no key 'x'; it takes: init_scale"),
    (
        ["run", *QUICK, "--policy", "constant:-1"],
        "constant: scale should be a number from 2^-126 to 2^126, got -1",
    ),
    (["run", *QUICK, "--policy", "constant:many"], "constant: scale takes a number such as 1024"),
    (["run", *QUICK, "--precision", "fp8"], "unknown precision 'fp8'; choose one of: fp16, bf16 or fp32"),
    (["run", *QUICK, "--device", "tpu"], "unknown device 'tpu'; choose one of: auto, cpu or cuda"),
    (
        ["run", *QUICK, "--device", "cuda"],
        "device 'cuda' is absent: torch sees no GPU here; choose cpu or auto",
    ),
    (["run", "--task", "digits-mlp", "--steps", "0"], "steps: should be greater than or equal to 1, got 0"),
    (["run", "--task", "digits-mlp", "--steps", "x"], "Invalid value for '--steps'"),
    (["run", *QUICK, "--seed", "-1"], "seed: should be greater than or equal to 0, got -1"),
    (["run", *QUICK, "--speed", "9"], "No such option"),
    (["run"], "Missing option '--task'"),
    (["run", *QUICK, "--out", "/proc/lsviz"], "can't write runs to '/proc/lsviz'"),
    (["run", *QUICK, "--out", "/dev/null"], "can't write runs to '/dev/null'"),
    (
        ["run", *QUICK, "--update", "divide"],
        "unknown update 'divide'; choose one of: unscale, fold-lr or none",
    ),
    (["run", *QUICK, "--clip", "0"], "clip: should be greater than 0, got 0"),
    (["run", *QUICK, "--clip-order", "x"], "unknown clip_order 'x'; choose one of: after, before or scaled"),
    (["run", *QUICK, "--loss-weight", "2^1"], "loss_weight: should be less than or equal to 1, got 2.0"),
    (["run", *QUICK, "--loss-weight", "x"], "'x' is no number such as 0.5 or 2^-10"),
    (["run", *QUICK, "--init-gain", "0"], "init_gain: should be greater than or equal to 0.015625, got 0"),
    (["run", *QUICK, "--optimizer", "lion"], "unknown optimizer 'lion'; choose one of: task, sgd"),
    (["run", *QUICK, "--policy", "layerwise", "--update", "fold-lr"], "it takes update=unscale"),
    (
        ["run", *QUICK, "--precision", "fp32", "--no-master-weights"],
        "master_weights=false needs precision fp16 or bf16",
    ),
    (
        ["run", *QUICK, "--inject", "3:layer1"],
        "inject: '3:layer1' is no step:layer:kind; give one as 20:layer3:inf",
    ),
    (
        ["run", *QUICK, "--inject", "12:layer1:inf"],
        "12:layer1:inf comes after the last step; choose one from 0 to 11",
    ),
    (
        ["run", *QUICK, "--inject", "3:layer9:inf"],
        "no layer 'layer9' in this model; there are layer1, layer2, output",
    ),
    (["run", *QUICK, "--policy", "jmp:hysteresis=2"], "jmp has no key 'hysteresis'; it takes: init_scale"),
    (["trace", "--policy", "none"], "trace takes one of --overflow and --amax"),
    (["trace", "--policy", "none", "--overflow", "Oo"], "got 'o' at position 1"),
    (["trace", "--policy", "none", "--amax", "nowhere.json"], "can't read 'nowhere.json'"),
    (["blah"], "No such command 'blah'"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[" ".join(a) for a, _ in ERRORS])
def test_an_error_is_one_line_exit_2_and_nothing_half_made(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    # No GPU for this process, so that the absent device is absent on every machine.
    done = forked(*arguments, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{}",
        '{"amax": 3}',
        '{"amax": "123"}',
        '{"amax": {"0.5": 1}}',
        '{"amax": [true]}',
        '{"amax": ["x"]}',
        f'{{"amax": [1{"0" * 400}]}}',
        "not json",
        "[" * 99999,
    ],
)
def test_an_amax_file_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    done = forked("trace", "--policy", "none", "--amax", "a.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "must hold JSON such as" in done.stderr


def test_ctrl_c_leaves_a_readable_run_marked_cancelled(tmp_path: Path) -> None:
    arguments = ["run", "--task", "sigmoid-mlp", "--steps", "100000", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lsviz", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("*/steps-*.parquet")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "cancelled at step" in stderr
    assert "Traceback" not in stderr
    (path,) = tmp_path.glob("2*")
    run = open_run(path)
    assert run.status.state == "cancelled"
    assert len(run.steps()) == run.status.step > 0
    assert run.problems == []


def test_dash_serves_the_pages_on_loopback_and_opens_them(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = lsviz("dash", "--port", str(port), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == f"lsviz: port {port} is taken; choose another with --port\n"
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "lsviz", "dash", "--port", str(port)],
        cwd=tmp_path,
        env=clean_environment(DISPLAY=":0", BROWSER=f"{browser} %s"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert f"http://localhost:{port}" in process.stdout.readline()
            for path in ("", "/compare", "/_stcore/health"):
                assert status_of(f"http://127.0.0.1:{port}{path}") == 200
            assert listening_addresses(port) == {"127.0.0.1"}
            end = time.monotonic() + PATIENCE
            while not opened.exists() and time.monotonic() < end:
                time.sleep(0.05)
            assert opened.read_text().strip() == f"http://localhost:{port}"
        finally:
            os.killpg(process.pid, signal.SIGINT)


def status_of(url: str, seconds: float = PATIENCE) -> int:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def listening_addresses(port: int) -> set[str]:
    connections = psutil.net_connections("inet")
    return {
        c.laddr.ip for c in connections if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
    }


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], []])
def test_help_needs_no_torch_and_no_streamlit(arguments: list[str]) -> None:
    code = (
        "import sys; from lsviz.cli import main; main(sys.argv[1:]);"
        "sys.exit(bool({'torch', 'streamlit', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stdout

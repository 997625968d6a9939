"""The report: one file, offline, with every figure, whatever the runs are called."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import lsviz
from lsviz.analysis.blame import blame_finding
from lsviz.analysis.limits import judge_run
from lsviz.cli import main
from lsviz.report import ReportError, report_html, write_report
from lsviz.runs.files import RunFolderError, write_json
from lsviz.runs.reader import Run, RunError, open_run
from lsviz.runs.store import RunStore
from tests.conftest import SAMPLES, train_run


def figures(document: str) -> int:
    return len(re.findall(r'class="plotly-graph-div"', document))


def markup(document: str) -> str:
    """The page without what Plotly's own script holds."""
    return re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)


def titles(document: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", document)


def test_two_runs_make_every_figure_in_one_file(unscaled_run: Run, scaled_run: Run) -> None:
    document = report_html([unscaled_run, scaled_run])
    assert figures(document) == 6  # spectra, what-if, timelines, metric, two histories
    assert "Without loss scaling" in titles(document)[0]
    assert titles(document)[-1] == "What differs"
    assert "<td>constant:1024</td>" in document
    assert unscaled_run.run_id in document
    # Nothing is fetched: no script, style or picture from anywhere, and no button that sends data away.
    assert not re.search(r'(?:src|href)="(?!data:|#)[^"]*"', markup(document))
    assert not re.search(r"<script[^>]*src=", document)
    assert '"showSendToCloud": false' in document or '"showSendToCloud":false' in document


def test_pictures_lie_in_the_file() -> None:
    runs = [r for r in RunStore.at(SAMPLES).list_runs() if r.config.loss_weight == 2.0**-8]
    document = report_html(runs)
    assert markup(document).count("data:image/png;base64,") == 5
    assert "What each run learned" in titles(document)


def test_enough_constant_scales_make_a_u_curve(tmp_path: Path) -> None:
    settings = {"task": "digits-mlp", "steps": 8, "record_every": 4, "reference_every": 4}
    runs = [train_run(tmp_path, policy=p, **settings) for p in ("none", "constant:256", "constant:2^20")]
    assert "digits-mlp: from small S to large" in titles(report_html(runs))
    with_fp32 = [*runs, train_run(tmp_path, precision="fp32", **settings)]
    assert any("as FP32 does" in title for title in titles(report_html(with_fp32)))
    assert not any("S to large" in title for title in titles(report_html(runs[:2])))


def test_runs_with_the_same_fault_show_how_they_react(tmp_path: Path, unscaled_run: Run) -> None:
    settings = {"task": "sigmoid-mlp", "steps": 8, "record_every": 0, "reference_every": 0}
    runs = [
        train_run(tmp_path, **settings, policy=policy, inject="3:layer2:nan")
        for policy in ("none", "gradscaler", "patent", "logmax", "histogram")
    ]
    document = report_html([unscaled_run, *runs])
    (reaction,) = [title for title in titles(document) if "NaN" in title]
    assert reaction.startswith("A NaN in layer2 at step 3: all 5 runs skip the step")
    assert "dotted: NaN in layer2" in document
    assert not any("NaN" in title for title in titles(report_html([unscaled_run])))


def test_skipped_steps_are_blamed_on_who_overflowed_first() -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    skipping = next(r for r in runs if r.status.skipped_steps and not r.config.injections)
    clean = next(r for r in runs if r.config.task == skipping.config.task and not r.status.skipped_steps)
    document = html.unescape(report_html([clean, skipping]))
    blame = judge_run(skipping, must_ask=False).blame
    assert f"gradscaler: {blame_finding(blame, skipping.config.steps)}" in document
    assert "S was too large each time." in document
    assert "Lines are means over the seeds" not in document


def own_loop(path: Path) -> Run:
    """Record a loop of one's own in FP16, which has no FP32 reference and skips no step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with lsviz.record(model, path, scaler=scaler) as rec:
        for _ in range(4):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = model(torch.randn(32, 8)).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            rec.step(loss)
    return lsviz.open_run(path)


def test_a_loop_of_ones_own_has_its_slider_and_its_limits(tmp_path: Path, scaled_run: Run) -> None:
    own = own_loop(tmp_path / "mine")
    document = report_html([own])
    judged = judge_run(own)
    assert judged.rows is not None
    assert judged.rows.censored
    assert html.escape(judged.rows.caution) in document
    assert html.escape(judged.limits.finding) in document
    assert "gradients as recorded" in document
    assert "not known without an FP32 reference" in document
    assert figures(document) == 4  # spectra, what-if, timelines, headroom
    # Beside a run that has references, those are asked.
    together = report_html([own, scaled_run])
    assert "cast of the FP32 gradients" in together
    assert "gradients as recorded" not in together
    assert "not known without an FP32 reference" not in together


def test_names_in_a_run_mean_nothing_to_the_page(unscaled_run: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(unscaled_run.path, tmp_path / "<script>alert(1)</script>".replace("/", "_")))
    record = open_run(path).record.model_copy(update={"run_id": "<img src=x onerror=alert(1)>"})
    write_json(path / "run.json", record.model_dump())
    document = report_html([open_run(path)])
    assert "<img src=x" not in document
    assert "&lt;img src=x" in document
    assert titles(document)[-1] == "Settings and results"


def test_a_run_without_recordings_still_has_its_timelines(tmp_path: Path) -> None:
    run = train_run(tmp_path, task="digits-mlp", steps=6, record_every=0, reference_every=0)
    document = report_html([run])
    assert figures(document) == 2  # timelines and metric


def test_what_can_not_be_is_told(unscaled_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="1 to 100 runs, got 0"):
        report_html([])
    with pytest.raises(ReportError, match="got 101"):
        report_html([unscaled_run] * 101)
    with pytest.raises(RunFolderError, match="can't write"):
        write_report([unscaled_run], tmp_path / "nowhere" / "r.html")
    with pytest.raises(RunError):
        write_report([open_run(tmp_path)], tmp_path / "r.html")


def test_the_command_takes_folders_and_ids(
    unscaled_run: Run, scaled_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    root = str(scaled_run.path.parent)
    assert main(["report", str(unscaled_run.path), scaled_run.run_id, "--runs", root, "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert figures(out.read_text(encoding="utf-8")) == 6
    assert list(tmp_path.iterdir()) == [out]
    assert main(["report", "nothing", "--runs", root, "-o", str(out)]) == 2
    assert "no run 'nothing'" in capsys.readouterr().err


def test_the_slider_begins_at_the_s_that_is_advised() -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    run = next(r for r in runs if r.config.policy == "constant:16384")
    page = report_html([run])
    assert "Keep S = 2¹⁴: it just serves all layers of this run" in page
    assert re.search(r'"active": ?24\b', page), (
        "2^14 is the 25th of the slider's scales, which begin at 2^-10"
    )

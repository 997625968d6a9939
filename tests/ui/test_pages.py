"""Every page in every state, through streamlit's own AppTest: no runs, samples, running, failed, broken."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lsviz.jobs.manager import cancel_run, live_status
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run
from lsviz.runs.store import RunStore
from lsviz.runs.writer import create_run
from lsviz.training.catalog import find_task
from lsviz.ui.keys import KEYS
from tests.conftest import PATIENCE, REPOSITORY, SAMPLES, train_run
from tests.ui.opening import PAGES, charts, copy_of, open_page, words


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Callable[[str], object]:
    return request.getfixturevalue  # type: ignore[no-any-return]


@pytest.mark.usefixtures("runs_root", "no_samples")
@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("explore", "Nothing to show yet"),
        ("launch", "Your runs will appear here"),
        ("compare", "No runs to compare yet"),
    ],
)
def test_without_runs_each_page_says_what_to_do(page: str, sentence: str) -> None:
    app = open_page(page)
    assert sentence in words(app)
    assert charts(app) == 0


@pytest.mark.usefixtures("runs_root")
def test_explore_opens_on_the_samples() -> None:
    app = open_page("explore")
    assert "Without loss scaling, the lowest" in app.header[0].value
    assert charts(app) == 1
    assert "constant:1024" in app.get("plotly_chart")[0].proto.spec


@pytest.mark.usefixtures("runs_root")
def test_explore_links_questions_to_the_runs_that_answer_them() -> None:
    app = open_page("explore", setting="shapes-ssd")
    links = {link.proto.label: link.proto.query_string for link in app.get("page_link")}
    by_policy = {
        run.config.policy: run.run_id
        for run in RunStore.at(SAMPLES).list_runs()
        if run.config.task == "shapes-ssd" and run.config.loss_weight == 1
    }
    assert f"seen={by_policy['constant:256']}&format=FP16" in links["Which S should I use?"]
    assert f"seen={by_policy['none']}&format=BF16" in links["Would BF16 have helped?"]
    assert f"seen={by_policy['constant:256']}" in links["Which layer limits S?"]
    assert f"seen={by_policy['gradscaler']}" in links["Why did gradscaler skip steps?"]
    calm = open_page("explore", setting="digits-mlp")
    why = [link.proto.label for link in calm.get("page_link") if link.proto.label.startswith("Why did")]
    assert why == ["Why did gradscaler on shapes-ssd skip steps?"]


def test_explore_follows_its_controls() -> None:
    app = open_page("explore")
    before = app.header[0].value
    app.select_slider[0].set_value(960)
    app.run()
    assert not app.exception
    assert "step 960 of 1,000" in words(app)
    assert app.header[0].value != before


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    "query", [{"step": "7"}, {"step": "x"}, {"beside": "<b>"}, {"step": "-1", "beside": ""}]
)
def test_explore_survives_a_strange_url(query: dict[str, str]) -> None:
    app = open_page("explore", **query)
    assert charts(app) == 1


@pytest.mark.usefixtures("runs_root")
def test_compare_shows_the_sample_runs_side_by_side() -> None:
    app = open_page("compare")
    assert len(app.multiselect(key="chosen_runs").value) == 4
    assert charts(app) == 2
    table = app.table[0].value
    names = ["", "FP32", "no scaling", "constant:1024", "gradscaler"]
    assert [name.replace("\\", "") for name in table.columns] == names
    assert "accuracy" in table[""].tolist()


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize("page", ["compare", "layers", "whatif", "replay", "updates", "reproduce"])
def test_the_first_page_that_is_seen_has_one_figure_and_the_place_of_the_other(page: str) -> None:
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=PATIENCE)
    app.switch_page(str(PAGES[page])).run()
    assert not app.exception
    assert charts(app) == 1
    app.run()  # as the browser asks for, once it has drawn that one
    assert charts(app) == 2


@pytest.mark.usefixtures("runs_root")
def test_compare_takes_its_runs_from_the_url_and_keeps_them_there() -> None:
    runs = RunStore.at(SAMPLES).list_runs()
    chosen = [runs[2].run_id, runs[0].run_id]
    app = open_page("compare", runs=",".join(chosen))
    assert app.multiselect(key="chosen_runs").value == chosen
    assert app.query_params["runs"] in (",".join(chosen), [",".join(chosen)])


@pytest.mark.usefixtures("runs_root")
def test_compare_leaves_out_strangers_in_the_url() -> None:
    run = RunStore.at(SAMPLES).list_runs()[0]
    app = open_page("compare", runs=f"../../etc,{run.run_id},<script>,{run.run_id}")
    assert app.multiselect(key="chosen_runs").value == [run.run_id]
    assert "a run that is not here: '../../etc'" in words(app)


@pytest.mark.usefixtures("runs_root")
def test_compare_shows_no_other_runs_in_place_of_those_asked_for() -> None:
    app = open_page("compare", runs="gone1,gone2")
    assert app.multiselect(key="chosen_runs").value == []
    assert "a run that is not here: 'gone1'" in words(app)
    assert charts(app) == 0


def test_compare_tells_of_a_run_without_recorded_gradients(runs_root: Path, unscaled_run: Run) -> None:
    plain_run = train_run(runs_root, task="digits-mlp", steps=3, record_every=0, reference_every=0)
    recorded = copy_of(unscaled_run, runs_root)
    app = open_page("compare", runs=f"{recorded.name},{plain_run.run_id}")
    assert charts(app) == 2
    assert "no gradients were recorded in this run" in words(app)


def test_steps_with_a_reference_are_the_ones_to_choose_from(runs_root: Path) -> None:
    run = train_run(runs_root, task="digits-mlp", steps=20, record_every=1, reference_every=7)
    app = open_page("compare", runs=run.run_id)
    assert app.select_slider[0].options == ["0", "7", "14"]
    assert "No gradients with an FP32 reference" not in app.header[0].value


def test_an_overflowing_run_is_no_success_on_any_page(runs_root: Path) -> None:
    run = train_run(runs_root, task="sigmoid-mlp", policy="constant:2^40", steps=12)
    app = open_page("launch", run=run.run_id)
    assert "12 of 12 steps overflowed and were skipped" in words(app)
    assert "overflow to Inf and the step is skipped" in open_page("compare", runs=run.run_id).header[0].value


@pytest.mark.usefixtures("runs_root")
def test_compare_without_a_choice_says_so() -> None:
    app = open_page("compare")
    app.multiselect(key="chosen_runs").set_value([])
    app.run()
    assert not app.exception
    assert "Choose two to four runs" in words(app)


def test_a_broken_part_is_named_and_the_rest_shown(runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    (path / "exponents.parquet").write_bytes(b"PAR1 torn PAR1")
    app = open_page("launch", run=path.name)
    assert "exponents.parquet can't be read" in words(app)
    assert charts(app) == 1
    app = open_page("compare", runs=path.name)
    assert "exponents.parquet can't be read" in words(app)


def test_a_broken_run_is_named_and_the_others_shown(runs_root: Path, unscaled_run: Run) -> None:
    copy_of(unscaled_run, runs_root)
    broken = create_run(runs_root, RunConfig.build(task="sigmoid-mlp"))
    (broken / "run.json").write_text('{"run_id": 3}')
    app = open_page("compare")
    assert "run.json is broken" in words(app)
    assert charts(app) == 2
    assert "run.json is broken" in words(open_page("launch", run=broken.name))


def test_a_broken_status_is_told(runs_root: Path, unscaled_run: Run) -> None:
    path = copy_of(unscaled_run, runs_root)
    (path / "status.json").write_text("nonsense")
    assert "status.json is broken" in words(open_page("launch", run=path.name))
    assert not open_page("launch").exception
    assert not open_page("compare", runs=path.name).exception


def test_start_launches_the_run_that_the_form_asks_for(runs_root: Path) -> None:
    app = open_page("launch")
    app.selectbox(key="task").set_value("digits-mlp").run()
    app.selectbox(key="policy.name").set_value("gradscaler").run()
    app.number_input(key="policy.gradscaler.growth_interval").set_value(7)
    app.number_input(key="clip").set_value(2.0)
    app.select_slider(key="loss_weight").set_value("2⁻⁸")
    app.number_input(key="steps").set_value(15)
    app.number_input(key="seed").set_value(4)
    app.text_input(key="inject").set_value(" 3:layer1:nan ")
    app.run()
    next(button for button in app.button if button.label == "Start").click()
    app.run()
    assert not app.exception
    (run,) = RunStore.at(runs_root).list_runs()
    try:
        assert run.config == RunConfig.build(
            task="digits-mlp",
            policy="gradscaler:growth_interval=7",
            steps=15,
            seed=4,
            clip=2.0,
            loss_weight=2.0**-8,
            inject="3:layer1:nan",
        )
        assert app.query_params["run"] in (run.run_id, [run.run_id])
        end = time.monotonic() + PATIENCE
        while live_status(run).live:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert live_status(run).state == "finished"
    finally:
        cancel_run(run)


@pytest.mark.usefixtures("runs_root")
def test_another_task_brings_its_own_number_of_steps() -> None:
    app = open_page("launch", inject="20:layer5:inf")
    assert app.number_input(key="steps").value == 1000
    app.selectbox(key="task").set_value("digits-mlp").run()
    assert app.number_input(key="steps").value == 400
    assert app.text_input(key="inject").value == "", "another task has other layers"


@pytest.mark.usefixtures("runs_root")
def test_a_link_to_launch_forgets_what_was_chosen_before() -> None:
    app = open_page("launch")
    app.selectbox(key="task").set_value("digits-cnn").run()
    app.number_input(key="seed").set_value(5).run()
    for page, query in (("whatif", {}), ("launch", {"task": "char-gpt", "policy": "constant:2^9"})):
        app.switch_page(PAGES[page])
        app.query_params.clear()
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
    assert app.selectbox(key="task").value == "char-gpt"
    assert app.text_input(key="policy.constant.scale").value == "512"
    assert app.number_input(key="seed").value == 0
    assert app.number_input(key="steps").value == find_task("char-gpt").steps


def test_every_key_of_the_url_stands_in_the_table() -> None:
    used: set[str] = set()
    for file in (REPOSITORY / "lsviz" / "ui").rglob("*.py"):
        source = file.read_text()
        used |= set(re.findall(r'query_params(?:\.get\(|\.pop\(|\[)"(\w+)"', source))
        used |= set(re.findall(r'url_list\("(\w+)"', source))
        used |= set(re.findall(r'key="(\w+)",\s*bind="query-params"', source))
        used |= set(re.findall(r'(?:_choice|_number|_power|policy_form)\(\s*"(\w+)"', source))
    assert used == set(KEYS)


@pytest.mark.usefixtures("runs_root")
def test_the_url_holds_the_words_of_the_command_line() -> None:
    app = open_page(
        "launch", task="digits-mlp", precision="bf16", policy="gradscaler", seed="7", update="none"
    )
    assert app.selectbox(key="task").value == "digits-mlp"
    assert app.get("button_group")[0].value == "bf16"
    assert app.selectbox(key="policy.name").value == "gradscaler"
    assert "Without 1/S, adam hardly notices" in words(app)
    assert app.number_input(key="seed").value == 7


@pytest.mark.usefixtures("runs_root")
def test_an_unknown_word_in_the_url_is_told() -> None:
    assert "unknown task 'foo' in the link" in words(open_page("launch", task="foo"))
    assert "unknown precision 'fp8' in the link" in words(open_page("launch", precision="fp8"))


def test_bad_input_is_told_in_one_line_and_starts_nothing(runs_root: Path) -> None:
    app = open_page("launch")
    app.text_input(key="policy.constant.scale").set_value("many").run()
    assert "constant: scale takes a number" in words(app)
    next(button for button in app.button if button.label == "Start").click()
    app.run()
    assert not app.exception
    assert "constant: scale takes a number" in app.error[0].value
    assert not runs_root.exists()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("20:layer3", "inject: '20:layer3' is no step:layer:kind"),
        ("2000:layer3:inf", "inject: 2000:layer3:inf comes after the last step; choose one from 0 to 999"),
        ("20:<b>:huge", "sigmoid-mlp has no layer '<b>' with weights; choose one of: layer1, layer2"),
        ("20:layer3:huge,3:output:nan", "Injects 3:output:nan, 20:layer3:huge"),
    ],
)
def test_a_fault_comes_from_the_url_and_is_checked(fault: str, told: str, runs_root: Path) -> None:
    app = open_page("launch", inject=fault)
    assert app.text_input(key="inject").value == fault
    shown = words(app).replace("\\", "")
    assert told in shown
    assert ("inject: " in shown) == told.startswith("inject: ")
    if told.startswith("inject: "):
        next(button for button in app.button if button.label == "Start").click()
        app.run()
        assert told in words(app).replace("\\", "")
    assert not runs_root.exists()


@pytest.mark.usefixtures("runs_root")
@pytest.mark.parametrize(
    "query",
    [
        {"clip": "-1"},
        {"loss_weight": "7", "init_gain": "x"},
        {"update": "x", "l2": "y"},
        {"steps": "0"},
        {"steps": "x"},
        {"seed": "-5"},
        {"precision": "fp8"},
        {"task": "foo"},
        {"record_every": "1e99"},
    ],
)
def test_launch_survives_a_strange_url(query: dict[str, str]) -> None:
    open_page("launch", **query)


@pytest.mark.usefixtures("runs_root")
def test_no_page_loads_torch() -> None:
    code = (
        "import sys; from tests.ui.opening import PAGES, open_page\n"
        "for page in PAGES:\n"
        "    open_page(page)\n"
        "    assert 'torch' not in sys.modules, page\n"
        "print(*PAGES)"
    )
    # conftest imports torch's users, so this runs without it.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(PAGES)

from __future__ import annotations

import pytest

from lsviz.analysis.reproduction import format_metric, headline, paper_frame, verdict, verdict_frame
from lsviz.analysis.results import failed_result
from lsviz.runs.config import RunConfig
from lsviz.runs.reproduction import Reproduction, load_reproduction
from tests.analysis.test_results import result
from tests.conftest import SAMPLES


@pytest.mark.parametrize(
    ("task", "fp32", "variant", "expected"),
    [
        ("digits-mlp", [0.96, 0.97, 0.98], [0.95, 0.96, 0.97], "as FP32"),  # 0.01 apart, spread 0.02
        ("digits-mlp", [0.96, 0.97, 0.98], [0.93, 0.94, 0.93], "slightly worse"),
        ("digits-mlp", [0.96, 0.97, 0.98], [0.70, 0.75, 0.80], "worse"),
        ("digits-mlp", [0.96, 0.97, 0.98], [0.10, 0.10, 0.10], "fails"),
        ("digits-mlp", [0.80, 0.81, 0.80], [0.90, 0.90, 0.90], "better"),
        ("char-gpt", [2.6, 2.61, 2.62], [2.61, 2.62, 2.60], "as FP32"),  # lower is better
        ("char-gpt", [2.6, 2.61, 2.62], [2.3, 2.3, 2.3], "better"),
        ("char-gpt", [2.6, 2.61, 2.62], [2.9, 2.9, 2.9], "slightly worse"),
        ("char-gpt", [2.6, 2.61, 2.62], [9.0, 9.0, 9.0], "fails"),
        ("digits-mlp", [0.97], [0.96], "as FP32"),  # one seed: 2 % of the gain
        ("digits-mlp", [0.97], [0.94], "slightly worse"),
        ("digits-mlp", [0.97, 0.98], [0.97, None], "fails"),
        ("digits-mlp", [0.97, 0.98], [], "fails"),
        # The variant's own seeds differ by more than FP32's: nothing can be told of the means...
        ("digits-mlp", [0.97, 0.98, 0.98], [0.98, 0.94, 0.97], "as FP32"),
        # ...but where one of them loses a lot, that is no spread.
        ("digits-mlp", [0.97, 0.98, 0.98], [0.98, 0.60, 0.98], "worse"),
        ("digits-mlp", [0.97, 0.98, 0.98], [0.98, 0.10, 0.10], "fails"),
        ("digits-mlp", [0.97, None], [0.97, 0.97], None),  # nothing to compare with
        ("digits-mlp", [], [0.97, 0.97], None),
        ("digits-mlp", [0.05, 0.06], [0.97, 0.97], None),  # FP32 learned nothing
    ],
)
def test_a_verdict(
    task: str, fp32: list[float | None], variant: list[float | None], expected: str | None
) -> None:
    assert verdict(task, fp32, variant) == expected


def document(*pairs: tuple[str, list[float]]) -> Reproduction:
    rows = [
        result(
            variant,
            seed,
            experiment="sigmoid-mlp",
            task="sigmoid-mlp",
            metric=m,
            flushed=0.4,
            layers={"layer2": 0.9, "layer1": 1.0},
        )
        for variant, metrics in pairs
        for seed, m in enumerate(metrics)
    ]
    return Reproduction(created="2026-01-01T00:00:00+00:00", quick=False, seconds=1.0, results=rows)


def test_the_table_says_mean_spread_shares_and_finding() -> None:
    made = document(
        ("fp32", [0.92, 0.94]),
        ("none", [0.08, 0.08]),
        ("constant", [0.93, 0.94]),
        ("gradscaler", [0.91, 0.93]),
    )
    row = paper_frame(made).iloc[0]
    assert row["fp32"] == "0.930 ± 0.010"
    assert row["none"] == "0.080 ± 0.000"
    assert (row["S"], row["flushed"], row["worst"]) == ("1024", "40 %", "layer1 100 %")
    assert row["skipped"] == "0 %"
    assert row["fp16-weights"] == ""
    assert row["finding"] == "S = 1: fails; constant S: as FP32"
    assert "76.9" in row["paper"]
    assert (
        headline(made)
        == "0 of 1 experiments need no loss scaling; a constant S brings the one that suffers back to FP32."
    )


def test_where_nothing_is_harmed_nothing_is_brought_back() -> None:
    made = document(("fp32", [0.92, 0.94]), ("none", [0.93, 0.93]), ("constant", [0.93, 0.94]))
    assert paper_frame(made).iloc[0]["finding"] == "S = 1: as FP32"
    assert headline(made) == "1 of 1 experiments need no loss scaling."
    assert headline(document()) == "Nothing was trained yet."
    assert verdict_frame([]).empty


def test_a_slight_difference_is_counted_and_nothing_more_is_claimed() -> None:
    made = document(("fp32", [0.96, 0.97]), ("none", [0.93, 0.94]), ("constant", [0.96, 0.97]))
    assert headline(made) == "0 of 1 experiments need no loss scaling, 1 is slightly worse without it."


def test_nothing_is_brought_back_where_the_seeds_of_both_mix() -> None:
    made = document(("fp32", [0.7, 0.97]), ("none", [0.55, 0.56]), ("constant", [0.56, 0.97]))
    assert verdict_frame(made.results)["verdict"].tolist() == [None, "worse", "as FP32"]
    assert headline(made) == "0 of 1 experiments need no loss scaling."


def test_what_did_not_end_can_not_be_told_and_is_named() -> None:
    made = document(("fp32", [0.92, 0.94]), ("none", [0.93, 0.93]))
    lost = failed_result(RunConfig.build(task="sigmoid-mlp", seed=2), "killed", "sigmoid-mlp", "none")
    broken = made.model_copy(update={"results": [*made.results, lost], "stopped": True})
    row = paper_frame(broken).iloc[0]
    assert row["none"] == "0.930 ± 0.000 (of 3 seeds 1 without a result)"
    assert row["finding"] == "S = 1: can't tell"
    assert headline(broken) == "Nothing can be compared yet."
    nan = result("none", 2, experiment="sigmoid-mlp", task="sigmoid-mlp", metric=None)
    diverged = made.model_copy(update={"results": [*made.results, nan], "stopped": True})
    assert paper_frame(diverged).iloc[0]["none"] == "0.930 ± 0.000 (of 3 seeds 1 not finite)"
    assert headline(diverged) == "So far 0 of 1 experiments need no loss scaling."


def test_a_metric_is_written_with_its_spread() -> None:
    assert format_metric(0.93125, 0.014) == "0.931 ± 0.007"
    assert format_metric(41.72, 0.5) == "41.7 ± 0.2"
    assert format_metric(0.5) == "0.500"
    assert format_metric(float("nan")) == "no number"


def shipped() -> Reproduction:
    found = load_reproduction(SAMPLES / "reproduce.json")
    assert found is not None
    return found


def verdicts() -> dict[tuple[str, str], str]:
    frame = verdict_frame(shipped().results)
    return {
        (e, v): word
        for e, v, word in zip(frame["experiment"], frame["variant"], frame["verdict"], strict=True)
    }


def test_the_shipped_result_holds_what_the_paper_found() -> None:
    told = verdicts()
    for experiment in ("digits-cnn", "digits-mlp", "dcgan", "char-gpt", "char-lstm"):
        assert told[experiment, "none"] == "as FP32", experiment
    recovered = [
        experiment
        for (experiment, variant), word in told.items()
        if variant == "none" and word == "fails" and told[experiment, "constant"] in ("as FP32", "better")
    ]
    assert len(recovered) >= 2
    assert told["digits-mlp, small steps", "fp16-weights"] in ("worse", "fails")


def test_the_shipped_result_says_where_it_was_made() -> None:
    made = shipped()
    assert not made.quick
    assert {"cpu", "cores", "memory_gib"} <= set(made.machine)
    assert {"torch", "python", "lsviz"} <= set(made.versions)
    assert {r.seed for r in made.results} == {0, 1, 2}
    assert made.curve
    assert made.seconds < 40 * 60

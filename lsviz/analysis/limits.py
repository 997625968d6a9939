"""Which layer limits the loss scale: the one that needs it large, and the one that forbids it larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lsviz.analysis.blame import Bottleneck, blame_frame, bottleneck, headroom_frame
from lsviz.analysis.cautions import count_steps, find_cautions
from lsviz.analysis.ceiling import Ceiling, find_ceiling, layer_ceilings, without_steps
from lsviz.analysis.compare import run_label
from lsviz.analysis.findings import HEAVY, format_percent, format_scale
from lsviz.analysis.recommend import THRESHOLD, Recommendation, recommend
from lsviz.analysis.scalemap import SCALES, scale_map_frame
from lsviz.analysis.series import run_format, tensor_layout
from lsviz.analysis.shares import COUNTED_COLUMNS
from lsviz.analysis.whatif import Histograms, WhatIfError, load_histograms
from lsviz.formats import FloatFormat
from lsviz.runs.config import RunConfig
from lsviz.runs.reader import Run


@dataclass(frozen=True, slots=True)
class Limits:
    """Both ends of what S may be, and whose they are.

    Attributes:
        threshold: Share of each tensor's values that may be flushed.
        low: Least power of two at which no tensor loses more; None where none is large enough, or where
            nothing tells.
        needs: The layer that asks for it; None where S = 2^-10 serves all, or where nothing tells.
        most: Largest power of two at which nothing overflows; None where none is small enough, or where
            nothing tells.
        forbids: The layer that allows no more; None where nothing limits S.
        recorded: Of how many recorded steps low is, and most too where every is 0.
        every: Of how many steps most is; 0 where only recorded ones tell.
        unseen: Of how many other steps nothing tells.
        left_out: At how many steps a fault was put in, which therefore do not count.
        endless: Where FP32 has Inf or NaN at a step, so that no S cures it: its layer and step.
        censored: Whether nobody knows what was flushed, for want of a reference, and so nothing of low.
    """

    threshold: float
    low: float | None
    needs: str | None
    most: float | None
    forbids: str | None
    recorded: int
    every: int
    left_out: int = 0
    endless: str = ""
    censored: bool = False
    unseen: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "finding": self.finding}

    @property
    def finding(self) -> str:
        """Both limits in one sentence, without its full stop."""
        if self.endless:
            return f"No S cures {self.endless}"
        if self.censored or not self.recorded:
            if self.forbids is None:
                return "Nothing tells which layer limits S"
            return f"S must be {self._at_most}; how small it may be only an FP32 reference tells"
        if self.forbids is None and self.most is None:
            return "All recorded gradients are zero, so nothing limits S"
        if self.most is None:
            return f"No S serves: {self.forbids} overflows at every S from 2⁻¹⁰ on"
        if self.low is None:
            lost = f"{self.needs} {self._loses} even at S = {format_scale(SCALES[-1])}"
            return (
                f"No S serves: {lost}"
                if self._boundless
                else f"No S serves: {lost}, and it must be {self._at_most}"
            )
        if self.low > self.most:
            least = f"{format_scale(self.low)} for {self.needs} (or it {self._loses})"
            return f"No S serves: it should be at least {least}, but must be {self._at_most}"
        enough = f"S = 1 is enough for every layer (none {self._loses})"
        least = f"S should be at least {format_scale(self.low)} for {self.needs} (or it {self._loses})"
        if self._boundless:
            free = f"nothing overflows up to S = {format_scale(SCALES[-1])}, as far as this looks"
            return f"{enough if self.low <= 1 else least}, and {free}"
        if self.low <= 1 <= self.most:
            return f"{enough}, and S must be {self._at_most}"
        if self.needs is None:
            return f"S must be {self._at_most}; no layer needs more"
        return f"{least} and must be {self._at_most}"

    @property
    def headline(self) -> str:
        """Who limits S, in a few words without a full stop; both limits where that says too little."""
        enough = self.needs is None if self.low is None else self.low <= (self.most or 0)
        serves = self.most is not None and enough
        if self.endless or self.forbids is None or not serves or self._boundless:
            return self.finding
        return f"{self.forbids} limits S: {format_scale(self.most or 0.0)} at most"

    @property
    def note(self) -> str:
        """From how many steps each limit is read, in one or two sentences; empty where nothing is known."""
        words = []
        every = f"the largest gradients of {count_steps(self.every, lead='' if self.left_out else 'all ')}"
        if self.unseen:
            every = f"the largest gradients of {self._seen}: those of the others may be larger"
        recorded = count_steps(self.recorded, "recorded ")
        if self.recorded and self.every and not self.censored:
            words.append(f"The lower limit is read from {recorded}, the upper one from {every}.")
        elif self.every:
            words.append(f"It is read from {every}.")
        elif self.recorded:
            words.append(f"{'It is' if self.censored else 'Both limits are'} read from {recorded}.")
        if self.left_out == 1:
            words.append("The step at which a fault was injected on purpose is left out.")
        elif self.left_out:
            words.append(
                f"The {self.left_out:,} steps at which faults were injected on purpose are left out."
            )
        return " ".join(words)

    @property
    def _seen(self) -> str:
        return f"{self.every:,} of {self.every + self.unseen:,} steps"

    @property
    def _loses(self) -> str:
        return f"loses more than {format_percent(self.threshold)} of its values to a cast"

    @property
    def _boundless(self) -> bool:
        return self.forbids is None or (self.most is not None and self.most >= SCALES[-1])

    @property
    def _at_most(self) -> str:
        if self.most is None:
            return f"under 2⁻¹⁰ for {self.forbids} (or it overflows)"
        only = "" if self.every else f", going by {count_steps(self.recorded, 'recorded ')},"
        only = f", going by {self._seen}," if self.every and self.unseen else only
        return f"at most {format_scale(self.most)}{only} for {self.forbids} (or it overflows)"


def find_limits(
    found: Recommendation | None,
    ceiling: Ceiling | None,
    owners: Mapping[str, str],
    *,
    recorded: int,
    left_out: int = 0,
    censored: bool = False,
) -> Limits:
    """Return both limits of a run.

    Args:
        found: What its recorded steps ask for, with the same ceiling; None where none can be asked.
        ceiling: What all its steps allow; None where nothing tells.
        owners: Tensor -> layer, as `TensorLayout.owners` has it.
        recorded: How many recorded steps were asked.
        left_out: At how many steps a fault was injected.
        censored: Whether those steps lack what was flushed.
    """

    def layer(tensor: str, kind: str) -> str:
        own = tensor.rpartition(".")[0] if kind == "weight_grad" else tensor
        return owners.get(tensor) or own or "the model"

    every, unseen = (0, 0) if ceiling is None else (ceiling.steps, ceiling.unseen)
    forbids = None if ceiling is None else ceiling.layer or "the model"
    if found is None:
        most = None if ceiling is None else ceiling.allows
        return Limits(THRESHOLD, None, None, most, forbids, 0, every, left_out, unseen=unseen)
    upper, endless = found.upper, ""
    if upper is not None and upper.value == float("inf"):
        endless = f"{upper.tensor}'s Inf or NaN at step {upper.step:,}, which FP32 has too"
    # The magnitudes of a reference can lie above those of the run's own rounding.
    if upper is not None and (
        ceiling is None or (ceiling.allows is not None and found.most != ceiling.allows)
    ):
        forbids = layer(upper.tensor, upper.kind)
    needs = None if found.lower is None or censored else layer(found.lower.tensor, found.lower.kind)
    return Limits(
        threshold=found.threshold,
        low=None if censored else found.low,
        needs=needs,
        most=found.most,
        forbids=forbids,
        recorded=recorded,
        every=every,
        left_out=left_out,
        endless=endless,
        censored=censored,
        unseen=unseen,
    )


@dataclass(frozen=True)
class Judged:
    """What a run tells of S, in one format. Steps with an injected fault count only in blame and headroom.

    Attributes:
        steps: The steps table.
        blame: `blame_frame`.
        headroom: `headroom_frame`.
        usual: The same without steps at which a fault was injected.
        bottleneck: The layer with the largest gradient.
        ceiling: What all steps allow.
        layer_ceilings: Layer -> what its own gradients allow.
        rows: What of the run there is to ask; None where there is nothing.
        scale_map: `scale_map_frame` of it.
        found: What to use; None where there is nothing to ask.
        limits: Which layers limit S.
        cautions: What to mind, a sentence each.
        measured: Whether the largest gradients of every step were kept.
        exponents: The exponents table, with COUNTED_COLUMNS.
        keeps: The S that the run ended with, where it scaled the loss and that S is one of those that serve.
    """

    steps: pd.DataFrame
    blame: pd.DataFrame
    headroom: pd.DataFrame
    usual: pd.DataFrame
    bottleneck: Bottleneck | None
    ceiling: Ceiling | None
    layer_ceilings: dict[str, float]
    rows: Histograms | None
    scale_map: pd.DataFrame | None
    found: Recommendation | None
    limits: Limits
    cautions: list[str]
    measured: bool
    exponents: pd.DataFrame
    keeps: float | None

    @property
    def scale(self) -> float | None:
        """The S to use: the run's own, where that serves; None where no constant will do."""
        return self.found.best if self.keeps is None and self.found is not None else self.keeps

    @property
    def reason(self) -> str:
        """Why that S, in two sentences; empty where there is nothing to ask."""
        if self.found is None:
            return ""
        if self.keeps is None or self.keeps <= 1:
            return self.found.reason
        return f"{self.found.grounds} {self.found.room_at(self.keeps)}"

    @property
    def recorded(self) -> int:
        """How many recorded steps were asked."""
        return 0 if self.rows is None else int(self.rows.keys["step"].nunique())

    @property
    def asked(self) -> tuple[Histograms, Recommendation, pd.DataFrame]:
        """Rows, recommendation and map of a run that `judge_run` was told to need."""
        if self.rows is None or self.found is None or self.scale_map is None:
            raise WhatIfError("this run recorded no gradients that could be asked")
        return self.rows, self.found, self.scale_map


def judge_run(
    run: Run, fmt: FloatFormat | None = None, *, threshold: float = THRESHOLD, must_ask: bool = True
) -> Judged:
    """Return what a run's folder tells of S.

    Args:
        run: Any run.
        fmt: The format cast to; the one that the run computed in, where none is given.
        threshold: Share of each tensor's values that may be flushed.
        must_ask: Whether a run without recorded gradients is an error.

    Raises:
        WhatIfError: The run recorded no gradients, and it must have; or the threshold is no share.
    """
    config = run.config
    computed = run_format(config.precision)
    target = fmt or computed
    amax, outcomes, steps = run.amax(), run.outcomes(), run.steps()
    faults = {fault.step for fault in config.injections}
    layout = tensor_layout(amax, config.precision)
    blame = blame_frame(
        steps, outcomes, amax, precision=config.precision, injections=config.injections, layout=layout
    )
    headroom = headroom_frame(amax, precision=config.precision, layout=layout)
    usual = without_steps(headroom, faults)
    ceiling = find_ceiling(
        headroom,
        blame,
        outcomes,
        target,
        computed=computed,
        left_out=faults,
        run_steps=steps["step"].tolist(),
    )
    exponents = run.exponents(columns=COUNTED_COLUMNS)
    rows = _histograms(run, exponents, faults, must_ask=must_ask)
    scale_map = found = None
    if rows is not None:
        scale_map = scale_map_frame(rows, target)
        found = recommend(rows, target, threshold=threshold, scale_map=scale_map, ceiling=ceiling)
    recorded = 0 if rows is None else int(rows.keys["step"].nunique())
    return Judged(
        steps=steps,
        blame=blame,
        headroom=headroom,
        usual=usual,
        bottleneck=bottleneck(usual, precision=config.precision),
        ceiling=ceiling,
        layer_ceilings=layer_ceilings(headroom, target, faults),
        rows=rows,
        scale_map=scale_map,
        found=found,
        limits=find_limits(
            found,
            ceiling,
            layout.owners,
            recorded=recorded,
            left_out=len(faults & set(steps["step"])),
            censored=rows is not None and rows.censored,
        ),
        cautions=[]
        if found is None
        else find_cautions(exponents, found, recorded=recorded, steps=len(steps), skipped=len(blame)),
        measured=len(amax) > 0,
        exponents=exponents,
        keeps=_kept(config, steps, found) if found is not None and target == computed else None,
    )


def _kept(config: RunConfig, steps: pd.DataFrame, found: Recommendation) -> float | None:
    if config.policy == "none" or config.precision == "fp32" or steps.empty:
        return None
    last = float(steps["loss_scale"].iloc[-1])
    return last if found.serves(last) else None


def advice(config: RunConfig, judged: Judged) -> str:
    """Return what to do about S, in one short sentence: nothing, where the run's own serves.

    Raises:
        WhatIfError: The run recorded no gradients.
    """
    _, found, _ = judged.asked
    if judged.keeps is None:
        return found.headline
    scale, low = f"S = {format_scale(judged.keeps)}", judged.limits.low
    just = "just " if low is not None and 1 < low == judged.keeps else ""
    if config.policy.startswith("constant"):
        return f"Keep {scale}: it {just}serves all layers of this run"
    return f"Keep {run_label(config)}: its {scale} {just}serves all layers of this run"


def own_scale_finding(config: RunConfig, judged: Judged) -> str:
    """Return in one sentence what the run's own last S cost, where it is none of those that serve.

    Args:
        config: The run's.
        judged: `judge_run` of it, in the format that it computed in.

    Returns:
        Empty where that S serves, where nothing tells, and of runs in FP32, which have none.
    """
    if judged.scale_map is None or judged.found is None or config.precision == "fp32" or judged.steps.empty:
        return ""
    scale = float(judged.steps["loss_scale"].iloc[-1])
    told = judged.scale_map[judged.scale_map["scale"] == scale]  # powers of two
    if told.empty or judged.limits.censored or judged.found.serves(scale):
        return ""
    its = f"Its own S = {format_scale(scale)}"
    if judged.found.most is None or scale > judged.found.most:
        return f"{its} is too large: {judged.limits.forbids} overflows."
    worst = told.iloc[int(told["flushed"].to_numpy().argmax())]
    lost, most = format_percent(float(worst["flushed"])), format_percent(judged.limits.threshold)
    need = "" if worst["flushed"] > HEAVY else ": that alone need not harm training"
    return f"{its} loses {'just over ' * (lost == most)}{lost} of {worst['tensor']}'s values to a cast{need}."


def _histograms(run: Run, exponents: pd.DataFrame, faults: set[int], *, must_ask: bool) -> Histograms | None:
    try:
        rows = load_histograms(run, known=exponents)
    except WhatIfError:
        if must_ask:
            raise
        return None
    usual = rows.subset(~rows.keys["step"].isin(faults).to_numpy(bool)) if faults else rows
    if len(usual.keys):
        return usual
    if must_ask:
        raise WhatIfError("every recorded step of this run has a fault that was injected on purpose")
    return None

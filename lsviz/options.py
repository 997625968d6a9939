"""Options that several commands share: one name, help text and reader each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lsviz.policies import parse_number
from lsviz.runs.injection import FAULT_KINDS
from lsviz.runs.updates import ON_OVERFLOW, OPTIMIZERS, ORDERS, UPDATES
from lsviz.training.catalog import TASKS


def _words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _number(text: str) -> float:
    """Read a number as policies have them: 0.5, 2^-10."""
    try:
        return float(parse_number(str(text)))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number such as 0.5 or 2^-10") from None


def read_folder(text: str) -> Path:
    """Read the folder of an option; an empty text would be the current one."""
    if not str(text):
        raise typer.BadParameter("it is empty; give a folder, as runs")
    return Path(text)


_EARLY = f"{_words(ORDERS)} (the last two before unscaling; scaled"

Task = Annotated[str, typer.Option(help=f"What to train: {', '.join(TASKS)}.")]
Precision = Annotated[str, typer.Option(help="fp16, bf16 or fp32.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Steps = Annotated[int | None, typer.Option(help="Training steps; the task's own by default.")]
LossWeight = Annotated[
    float, typer.Option(parser=_number, metavar="NUMBER", help="Factor on the loss, from 2^-20 to 1.")
]
InitGain = Annotated[
    float, typer.Option(parser=_number, metavar="NUMBER", help="Factor on the initial weights, 2^-6 to 2^6.")
]
Optimizer = Annotated[str, typer.Option(help=f"{_words(OPTIMIZERS)}; task: its own.")]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate; the task's own by default.")]
Update = Annotated[str, typer.Option(help=f"How S is undone: {_words(UPDATES)}.")]
Clip = Annotated[float | None, typer.Option(help="Clip the gradient norm to this.")]
ClipOrder = Annotated[str, typer.Option(help=f"When to clip: {_EARLY} at clip x S).")]
L2 = Annotated[float, typer.Option(help="Coupled L2 penalty.")]
L2Order = Annotated[str, typer.Option(help=f"When L2 joins: {_EARLY} times S).")]
OnOverflow = Annotated[str, typer.Option(help=f"A step with Inf or NaN: {_words(ON_OVERFLOW)} its batch.")]
MasterWeights = Annotated[
    bool,
    typer.Option(help="FP32 weights; off, they are rounded to the run's half format after every update."),
]
CheckUpdate = Annotated[
    bool, typer.Option("--check-update", help="Hold every update against the right one in float64.")
]
RecordEvery = Annotated[int, typer.Option(help="Record gradients every N steps; 0: never.")]
ReferenceEvery = Annotated[int, typer.Option(help="FP32 reference every N steps; 0: never.")]
Inject = Annotated[
    str,
    typer.Option(
        metavar="STEP:LAYER:KIND",
        help=f"Faults for teaching: {_words(list(FAULT_KINDS))}, as 20:layer3:inf; several with commas.",
    ),
]
MaxHours = Annotated[
    float | None, typer.Option(help="End it after so many hours; LSVIZ_MAX_HOURS or 24 by default.")
]
MaxMemory = Annotated[
    float | None,
    typer.Option(help="End it when it takes so many GiB; LSVIZ_MAX_MEMORY_GIB or 90 % by default."),
]
Out = Annotated[
    Path | None, typer.Option(parser=read_folder, metavar="FOLDER", help="Folder that holds the runs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print strict JSON on stdout.")]
Jobs = Annotated[int | None, typer.Option(help="Runs at once; one a CPU by default.")]
Engine = Annotated[
    str,
    typer.Option(help="local: processes of this machine. ray: tasks of a Ray cluster (docs/ray.md)."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster: host:port, or auto for the one that this machine is part of; RAY_ADDRESS, or "
        "one for this sweep alone by default."
    ),
]
Gpus = Annotated[
    float, typer.Option(help="Share of a GPU that a run at --device cuda takes on Ray, as 0.25.")
]

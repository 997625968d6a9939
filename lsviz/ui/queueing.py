"""The queue as pages tell it: whose a launch is, and which place a run has."""

from __future__ import annotations

import hashlib

from streamlit.runtime.scriptrunner import get_script_run_ctx

from lsviz.analysis.findings import ordinal
from lsviz.errors import UserError
from lsviz.jobs.queue import live_jobs, places
from lsviz.jobs.slots import slots
from lsviz.runs.reader import Run


def session_owner() -> str:
    """Return how the queue calls this browser session; its own name is a secret, and stays one."""
    context = get_script_run_ctx()
    session = context.session_id if context else ""
    return f"page-{hashlib.sha256(session.encode()).hexdigest()[:12]}"


def queue_line(run: Run) -> str:
    """Return which place a waiting run has, as a sentence; nothing where it does not wait."""
    root = run.path.parent
    place = places(root).get(run.run_id)
    if place is None:
        return ""
    going = sum(not job.waits for job in live_jobs(root))
    try:
        most = slots()
    except UserError as error:
        return f"Queued, {ordinal(place)}, and waiting for a setting to be put right: {error}"
    return f"Queued, {ordinal(place)}: it starts when its turn comes ({going} under way, {most} at once)"

"""All that pages can do to runs, each act behind `require_change`: no other part of ui/ imports what writes.

A button that is hidden or disabled in the browser can still be pressed by a message to the server; that
ends here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lsviz.jobs import manager, pausing, removal, sweeping
from lsviz.runs import incoming, labelling
from lsviz.ui.access import require_change


def _guarded(act: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(act)
    def guarded(*values: Any, **named: Any) -> Any:
        require_change()
        return act(*values, **named)

    return guarded


submit_run = _guarded(manager.submit_run)
cancel_run = _guarded(manager.cancel_run)
pause_run = _guarded(pausing.pause_run)
resume_run = _guarded(pausing.resume_run)
delete_run = _guarded(removal.delete_run)
set_labels = _guarded(labelling.set_labels)
pin_run = _guarded(labelling.pin_run)
import_file = _guarded(incoming.import_file)
start_sweep = _guarded(sweeping.start_sweep)
cancel_sweep = _guarded(sweeping.cancel_sweep)
resume_sweep = _guarded(sweeping.resume_sweep)
dismiss_sweep = _guarded(sweeping.dismiss_sweep)

"""End a stage with the process that started it, however that one ends."""

from __future__ import annotations

import os
import threading

LIFELINE = "KATSUO_LIFELINE"
"""Set for a process whose standard input is held open by the one that started it."""
_STATUS = 143
"""As if terminated by a signal."""


def hold_lifeline() -> None:
    """
    Let this process end as soon as the one that holds its standard input has ended; without such a one do nothing.

    It ends at once, as by a kill: whoever takes its work up again finds what every kill leaves.
    """
    if os.environ.pop(LIFELINE, ""):
        threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(_STATUS)

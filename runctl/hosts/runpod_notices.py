"""RunPod's word that it takes a spot pod back: SIGTERM to the container's first process, and SIGKILL to all 5 s later.

The agent is not that process, and most images' start does not hear it. Where a start of ours is the first process, it
leaves a file (runctl/platforms/runpod/boot.py).

Source of the 5 s: docs.runpod.io, "Pod pricing", spot pods.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from runctl import hosts
from runctl.hosts.notices import Notice, Notices

NOTICE_S = 5.0
_FILE = "notice"


class PodNotices(Notices):
    """Looks for that file.

    Args:
        tell: called in the thread with the notice, once.
    """

    #: Of 5 s no more than a little may be lost.
    INTERVAL_S = 0.1

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        super().__init__(tell)
        self._path = Path(os.environ.get("RUNCTL_HOST_ROOT", hosts.ROOT), _FILE)

    def _look(self) -> None:
        try:
            came_at = self._path.stat().st_mtime
        except OSError:
            return
        self._tell(Notice("interruption", "terminate", came_at + NOTICE_S))
        self.end()

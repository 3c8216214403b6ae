"""When a checkpoint is due, and where it goes: what the launcher tells the ranks, or a script tells `attach`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from runctl.encoding import dumps, loads
from runctl.spec import CheckpointPolicy, Every, Retention

ENV = "RUNCTL_CHECKPOINT"
#: What names the place of checkpoints without a launcher, for the text of errors.
ATTACH_URL = "runctl.attach(url=…)"


@dataclass(frozen=True)
class RankPolicy:
    """Everything a rank needs to know of checkpoints.

    Attributes:
        folder: the run's folder of checkpoints, absolute.
        every: when one is due.
        restore: the verified checkpoint to begin from, or None to begin at step 0.
        grace_s: how long a stop may take.
        mean_time_to_interruption_s: what `every=auto` reckons with.
        retention: which checkpoints stay.
        launched: whether there is a launcher, which hears signals for the ranks and carries checkpoints on.
        upload_to: where rank 0 has checkpoints carried to if there is none: path or URL, or None.
    """

    folder: str
    run_id: str
    attempt: int = 1
    every: Every = field(default_factory=Every)
    restore: str | None = None
    grace_s: float = 30.0
    mean_time_to_interruption_s: float = CheckpointPolicy.mean_time_to_interruption_s
    retention: Retention = field(default_factory=Retention)
    launched: bool = True
    upload_to: str | None = None

    def to_environment(self) -> dict[str, str]:
        """The policy as the variable that ranks read."""
        return {ENV: dumps(self)}

    @classmethod
    def from_environment(cls) -> RankPolicy | None:
        """The launcher's policy, or None without a launcher."""
        text = os.environ.get(ENV)
        return loads(cls, text) if text else None

"""What people who are away want to know of a run, as the agent and plugins call it."""

from __future__ import annotations

#: Kinds of milestones, and what they say.
KINDS = {
    "started": "started",
    "first_step": "made its first step",
    "resumed": "goes on from a checkpoint",
    "stalled": "makes no steps",
    "budget": "has spent much of its budget",
    "interrupted": "was interrupted",
    "stopped": "was stopped",
    "finished": "has finished",
    "failed": "has failed",
}

"""The platform `runpod`: a RunPod pod. For now it plans and explains; it cannot launch yet."""

from __future__ import annotations

from runctl.platforms.planned import PlannedPlatform


class RunpodPlatform(PlannedPlatform):
    """A RunPod pod, as far as a plan goes."""

    kind = "runpod"

"""The platform `aws`: an EC2 instance. For now it plans and explains; it cannot launch yet."""

from __future__ import annotations

from runctl.platforms.planned import PlannedPlatform


class AwsPlatform(PlannedPlatform):
    """An EC2 instance, as far as a plan goes."""

    kind = "aws"

"""Prices are asked for where a zone lies, which its name does not always tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from runctl.platforms.aws import prices


def test_a_local_zones_price_is_asked_for_in_its_region() -> None:
    asked: list[str] = []

    def ec2(region: str) -> Any:
        asked.append(region)
        return SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=lambda **_: []))

    clients: Any = SimpleNamespace(ec2=ec2)
    assert prices.spot_changes(clients, "t3.medium", "us-west-2", "us-west-2-lax-1a", begin=0.0, end=1.0) == ()
    assert asked == ["us-west-2"]

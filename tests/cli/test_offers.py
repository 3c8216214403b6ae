"""`runctl offers`: one table across platforms, the cheapest first, and what is missing where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from made import Home

from runctl.drill.cloud import Cloud
from runctl.platforms.runpod import RunpodPlatform
from runctl.spec import LaunchSpec, Offer, Quote


def quoted(self: RunpodPlatform, spec: LaunchSpec) -> Quote:
    assert spec.resources.gpus == 1
    return Quote((
        Offer("runpod", "NVIDIA L4", "spot", "secure", None, 0.22),
        Offer("runpod", "NVIDIA L4", "on_demand", "secure", None, None),
    ))  # fmt: skip


def test_without_credentials_each_platform_says_what_is_missing(home: Home) -> None:
    result = home.runctl("offers", "resources.gpus=1")
    assert result.stdout == "Nothing is offered.\n"
    assert "aws: " in result.stderr and "there are no AWS credentials here" in result.stderr
    assert "runpod: " in result.stderr and "there is no RunPod API key here" in result.stderr


def test_a_word_that_is_none_is_said(home: Home) -> None:
    assert "write KEY=VALUE" in home.runctl("offers", "L4", expect=2).stderr
    assert "resources.gpuss" in home.runctl("offers", "resources.gpuss=1", "--platform", "aws", expect=2).stderr
    assert home.runctl("offers", "gpu=L4", expect=2).stderr.count("no such key") == 1


def test_one_table_across_platforms_regions_and_markets(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunpodPlatform, "_quote", quoted)
    with Cloud() as cloud:
        for name, value in cloud.environment({}).items():
            monkeypatch.setenv(name, value)
        words = ["offers", "resources.gpus=1", "--region", "us-east-1", "--region", "us-west-2",
                 "platform.max_price_usd_per_hour=null"]  # fmt: skip
        told: dict[str, Any] = json.loads(home.runctl(*words, "--json").stdout)
        shown = home.runctl(*words, "-n", "5").stdout
    offers = told["offers"]
    prices = [one["price_usd_per_hour"] for one in offers]
    assert prices == sorted(prices, key=lambda price: (price is None, price))
    assert prices[-1] is None
    assert {one["platform"] for one in offers} == {"aws", "runpod"}
    assert {one["market"] for one in offers} == {"spot", "on_demand"}
    assert {one["region"] for one in offers if one["platform"] == "aws"} == {"us-east-1", "us-west-2"}
    assert {"L4", "A10G"} & {one["gpus"] for one in offers if one["platform"] == "aws"}
    lines = shown.splitlines()
    assert len(lines) == 7 and "more: -n" in lines[-1]
    assert max(map(len, lines)) <= 80

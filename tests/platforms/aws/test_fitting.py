"""Without a type of instance, what `resources` asks for is rented: the cheapest that has it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from whole import Account

from runctl.platforms.aws.fitting import InstanceType, wanted
from runctl.spec import Resources

L4 = InstanceType("g6.xlarge", 4, 16384, 1, "L4", 22888 << 20)
L4_LARGER = InstanceType("g6.4xlarge", 16, 65536, 1, "L4", 22888 << 20)
H100 = InstanceType("p5.48xlarge", 192, 2097152, 8, "H100", 81920 << 20)
CPU = InstanceType("c7i.xlarge", 4, 8192)
ALL = (L4, L4_LARGER, H100, CPU)


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        (Resources(), (L4, L4_LARGER)),
        (Resources(cpus=8), (L4_LARGER,)),
        (Resources(gpus=1), (L4, L4_LARGER)),
        (Resources(gpus=8), (H100,)),
        (Resources(gpus=2), ()),
        (Resources(gpu="l4"), (L4, L4_LARGER)),
        (Resources(gpus=8, gpu="H-100"), (H100,)),
        (Resources(gpu="H100"), ()),
        (Resources(gpus=8, gpu_memory_gib=80), (H100,)),
        (Resources(gpu_memory_gib=24), (L4, L4_LARGER)),
        (Resources(gpu_memory_gib=25), ()),
        (Resources(gpus=0), (CPU,)),
        (Resources(gpus=0, cpus=5), ()),
    ],
    ids=str,
)
def test_as_many_gpus_as_asked_and_enough_of_the_rest(asked: Resources, fits: tuple[InstanceType, ...]) -> None:
    assert tuple(one for one in ALL if one.fits(wanted(asked))) == fits


@pytest.mark.parametrize(
    "told",
    [
        {"BareMetal": True},
        {"GpuInfo": {"Gpus": [{"Name": "L4", "Manufacturer": "NVIDIA", "Count": 1, "GpuPartitionSize": 0.125}]}},
        {"GpuInfo": {"Gpus": [{"Name": "Radeon Pro V520", "Manufacturer": "AMD", "Count": 1}]}},
        {"InferenceAcceleratorInfo": {"Accelerators": [{"Name": "Inferentia", "Count": 1}]}},
    ],
    ids=["bare metal", "a share of a GPU", "a GPU without CUDA", "another accelerator"],
)
def test_what_no_training_could_use_is_left_out(told: dict[str, Any]) -> None:
    plain = {"InstanceType": "x", "VCpuInfo": {"DefaultVCpus": 4}, "MemoryInfo": {"SizeInMiB": 1}}
    assert InstanceType.of(plain) is not None
    assert InstanceType.of({**plain, **told}) is None


def planned(account: Account, *words: str) -> tuple[int, dict[str, Any], str]:
    (account.project / "train.py").write_text("")
    launch = account.start(
        "platform.instance_type=null",
        "script=train.py",
        "run.root=s3://whole/runs",
        "dry_run=true",
        "output=json",
        *words,
    )
    code = launch.wait(60)
    out, err = account.said(launch)
    assert "Traceback" not in err
    return code, json.loads(out)["plan"] if code == 0 else {}, err


def machines(plan: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(offer["machine"] for offer in plan["offers"]))


@pytest.mark.soak
def test_the_cheapest_that_fits_is_rented_first_and_said(account: Account) -> None:
    code, plan, err = planned(account)
    assert code == 0, err
    assert sorted(machines(plan)[:2]) == ["g5.xlarge", "g6.xlarge"]
    assert len(machines(plan)) == 4
    spot = [offer["price_usd_per_hour"] for offer in plan["offers"] if offer["market"] == "spot"]
    assert spot[0] == min(price for price in spot if price is not None)
    assert f"for 1 GPU of 24 GiB or more: {', '.join(machines(plan))}" in plan["notes"]
    asked = [one for one in plan["requests"] if one["call"] == "RunInstances"]
    assert {one["arguments"]["InstanceType"] for one in asked} == set(machines(plan))

    code, plan, err = planned(account, "resources.gpus=8", "resources.gpu=H100")
    assert code == 0, err
    assert machines(plan)[0] == "p5.48xlarge"

    code, plan, err = planned(account, "resources.gpus=0", "resources.cpus=4")
    assert code == 0, err
    assert machines(plan)[0] == "c7i.xlarge"

    code, plan, err = planned(account, "platform.instance_type=t3.medium", "resources.gpus=8")
    assert code == 0, err
    assert machines(plan) == ["t3.medium"], "a type that is named is what is rented"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("resources.gpu=RTX4090",), "no type of instance in us-east-1 has 1 RTX4090; GPUs there: "),
        (("resources.gpus=-1",), "resources.gpus=-1: at least 0"),
        (("resources.gpus=0", "resources.gpu=L4"), "resources.gpus=0: then resources.gpu and"),
        (("resources.gpu_count=1",), "resources.gpu_count: no such key"),
    ],
)
def test_what_cannot_be_had_is_said_with_what_can(account: Account, words: tuple[str, ...], why: str) -> None:
    code, _, err = planned(account, *words)
    assert code == 2
    assert why in err
    assert len(err.strip().splitlines()) == 1, err


def test_what_is_asked_for_is_said_in_words() -> None:
    assert str(wanted(Resources(gpus=2, gpu="A10G", cpus=8))) == "2 A10Gs and 8 processors or more"
    assert str(wanted(Resources(gpus=0))) == "no GPU"

"""What is planned for RunPod: which GPUs, at what price, with which requests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from renting import A5000, L4, MADE, Desk

from runctl.config.platform import PlatformConfig
from runctl.drill.faults import Fault
from runctl.errors import ConfigError
from runctl.platforms.rented import Market
from runctl.platforms.runpod import RunpodPlatform, requests
from runctl.platforms.runpod.options import CloudType, RunpodConfig, RunpodOptions, Transport
from runctl.spec import LaunchSpec, Limits, Offer, Plan, Program, Quote, Resources, RunIdentity


def offers(plan: Plan) -> list[tuple[str, str, str | None, float | None]]:
    return [(one.machine, one.market, one.region, one.price_usd_per_hour) for one in plan.offers]


def refused(**options: Any) -> str:
    with pytest.raises(ConfigError) as told:
        RunpodOptions.of(RunpodConfig(**options), attached=True)
    return str(told.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu_type": "a/b"}, "platform.gpu_type=a/b: such as 'RTX 4090'"),
        ({"gpu_type": []}, "platform.gpu_type is empty"),
        ({"gpu_count": 0}, "platform.gpu_count=0: at least 1"),
        ({"container_disk_gb": 1}, "platform.container_disk_gb=1: at least 5"),
        ({"bid_usd_per_hour": 0.0}, "platform.bid_usd_per_hour=0.0: more than 0"),
        ({"bid_usd_per_hour": 1.0, "market": Market.on_demand}, "nobody bids on demand"),
        ({"bid_usd_per_hour": 1.0, "max_price_usd_per_hour": 0.5}, "more than platform.max_price_usd_per_hour=0.5"),
        ({"max_price_usd_per_hour": -1.0}, "platform.max_price_usd_per_hour=-1.0: more than 0"),
        ({"image": " "}, "platform.image is empty"),
        ({"network_volume": "v", "volume_gb": 10}, "a pod mounts one of them"),
        ({"network_volume": "v", "cloud_type": CloudType.community}, "platform.cloud_type=secure"),
        ({"data_centers": ["eu ro"]}, "platform.data_centers=eu ro: such as EU-RO-1"),
        ({"cuda_versions": ["twelve"]}, "platform.cuda_versions=twelve: such as '12.8'"),
        ({"ports": ["6006"]}, "platform.ports=6006: such as 6006/http"),
        ({"ports": ["70000/tcp"]}, "platform.ports=70000/tcp: a port is 1 to 65535"),
        (
            {"template": "t1", "transport": Transport.start_command},
            "platform.template=t1: a template has a start command",
        ),
        (
            {"host": "p0d", "transport": Transport.start_command},
            "platform.host=p0d: a pod that runs already is reached",
        ),
        ({"start": "exec x", "transport": Transport.start_command}, "platform.start=exec x: with platform.transport"),
        ({"spot_attempts": 0}, "platform.spot_attempts=0: at least 1"),
        ({"bring_up": "soon"}, "platform.bring_up"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_option_that_cannot_be_names_key_and_value(options: dict[str, Any], said: str) -> None:
    assert said in refused(**options)


def test_without_a_type_the_cheapest_that_fits_comes_first(runpod: Desk) -> None:
    plan = runpod.plan(gpu_type=None, cloud_type=CloudType.secure, market=Market.spot)
    assert [one.machine for one in plan.offers] == [A5000, L4, "NVIDIA A40", "NVIDIA RTX A6000"]
    assert plan.notes[0] == f"for 1 GPU of 24 GiB or more: {A5000}, {L4}, NVIDIA A40, NVIDIA RTX A6000"
    runpod.cloud.set_capacity(A5000, spot=0, on_demand=0)
    runpod.cloud.set_capacity(L4, spot=0)
    plan = runpod.plan(gpu_type=None, cloud_type=CloudType.secure, market=Market.spot)
    assert [one.machine for one in plan.offers][:2] == ["NVIDIA A40", "NVIDIA RTX A6000"], "what is to be had is first"


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        (Resources(gpus=2, gpu_memory_gib=80), "NVIDIA A100 80GB PCIe"),
        (Resources(gpu="h100-sxm"), "NVIDIA H100 80GB HBM3"),
        (Resources(gpu="rtx a6000"), "NVIDIA RTX A6000"),
        (Resources(gpu_memory_gib=16), "NVIDIA RTX A4000"),
        (Resources(gpu="MI300X"), "AMD Instinct MI300X OAM"),
    ],
    ids=str,
)
def test_resources_choose_the_type(runpod: Desk, asked: Resources, first: str) -> None:
    plan = runpod.plan(spec=runpod.spec(resources=asked), gpu_type=None)
    assert plan.offers[0].machine == first
    assert plan.requests[0]["arguments"]["gpuCount"] == (asked.gpus or 1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Resources(gpus=0), "resources.gpus=0: platform=runpod rents GPUs"),
        (Resources(gpu="GTX 1080"), "has 1 GTX 1080; GPUs there: A100 PCIe"),
        (Resources(gpus=64), "has 64 GPUs"),
    ],
    ids=str,
)
def test_what_nothing_fits_is_said_with_what_there_is(runpod: Desk, asked: Resources, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        runpod.plan(spec=runpod.spec(resources=asked), gpu_type=None)
    assert said in str(told.value)


def test_named_types_are_tried_in_their_order_and_each_clouds_price_is_told(runpod: Desk) -> None:
    plan = runpod.plan(gpu_type=["L4", "rtx-a5000"], market=Market.spot_then_on_demand)
    assert offers(plan) == [
        (L4, "spot", "secure", 0.22),
        (A5000, "spot", "community", 0.14),
        (A5000, "spot", "secure", 0.18),
        (L4, "on_demand", "secure", 0.43),
        (A5000, "on_demand", "community", 0.22),
        (A5000, "on_demand", "secure", 0.29),
    ]
    assert plan.estimate_usd_per_hour == 0.22
    assert [one["arguments"]["cloudType"] for one in plan.requests[:2]] == ["SECURE", "COMMUNITY"]
    assert [one["arguments"].get("bidPerGpu") for one in plan.requests[:-1]] == [0.22, 0.14, 0.18, None, None, None]


def test_several_gpus_cost_and_bid_for_each(runpod: Desk) -> None:
    plan = runpod.plan(gpu_type=L4, gpu_count=4, market=Market.spot)
    assert plan.offers[0].price_usd_per_hour == pytest.approx(0.88)
    assert plan.requests[0]["arguments"]["bidPerGpu"] == 0.22
    plan = runpod.plan(gpu_type=L4, gpu_count=4, market=Market.spot, bid_usd_per_hour=2.0)
    assert plan.offers[0].price_usd_per_hour == 2.0
    assert plan.requests[0]["arguments"]["bidPerGpu"] == 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu_type": "RTX 9090"}, "platform.gpu_type=RTX 9090: RunPod has no such GPU; there are A100 PCIe, A40"),
        ({"gpu_type": L4, "gpu_count": 9}, "platform.gpu_count=9: a pod has at most 8 of L4"),
        ({"gpu_type": L4, "cloud_type": CloudType.community}, "not in RunPod's community cloud"),
        ({"gpu_type": L4, "max_price_usd_per_hour": 0.1}, "the cheapest is NVIDIA L4 spot in secure at 0.22"),
        ({"network_volume": "nothing"}, "platform.network_volume=nothing: there is no such volume; there is"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_never_be_had_is_said_at_once(runpod: Desk, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as told:
        runpod.plan(**options)
    assert said in str(told.value)


def test_offers_above_the_highest_price_are_left_out(runpod: Desk) -> None:
    plan = runpod.plan(max_price_usd_per_hour=0.2)
    assert offers(plan) == [(A5000, "spot", "community", 0.14), (A5000, "spot", "secure", 0.18)]


def test_the_balance_is_told_and_whether_it_lasts(runpod: Desk) -> None:
    assert "balance: 100.00 USD" in runpod.plan().notes
    runpod.cloud.set_balance(0.05)
    [note] = [
        one for one in runpod.plan(spec=runpod.spec(limits=Limits(max_time_s=36_000.0))).notes if "balance" in one
    ]
    assert note.startswith("balance: 0.05 USD, which lasts for 0.1 h at 0.43 USD an hour and not for the 11.")


def test_a_network_volume_decides_on_cloud_and_data_center(runpod: Desk) -> None:
    volume = runpod.cloud.make_volume("data", "EU-RO-1")
    for named in ("data", volume):
        plan = runpod.plan(network_volume=named, market=Market.spot)
        assert {(one.region, one.zone) for one in plan.offers} == {("secure", "EU-RO-1")}
        asked = plan.requests[0]["arguments"]
        assert (asked["networkVolumeId"], asked["dataCenterId"]) == (volume, "EU-RO-1")
        assert asked["volumeMountPath"] == "/workspace"
    with pytest.raises(ConfigError, match="network volume data is in EU-RO-1"):
        runpod.plan(network_volume="data", data_centers=["US-KS-2"])


def test_data_centers_are_tried_one_after_the_other(runpod: Desk) -> None:
    plan = runpod.plan(gpu_type=L4, data_centers=["EU-RO-1", "US-KS-2"], market=Market.spot)
    assert [one.zone for one in plan.offers] == ["EU-RO-1", "US-KS-2"]
    assert [one["arguments"]["dataCenterId"] for one in plan.requests[:-1]] == ["EU-RO-1", "US-KS-2"]


def test_the_request_holds_what_was_configured_and_no_value_of_the_users() -> None:
    spec = LaunchSpec(
        RunIdentity("one", "name", "s3://bucket/runs"), Program("train.py", None, tail=("--token=hunter2",)),
        env={"TOKEN": "hunter2"}, secrets={"HF": "runpod:hf_token", "KEY": "env:KEY"},
        resources=Resources(cpus=12), limits=Limits(max_time_s=3600.0),
    )  # fmt: skip
    config = RunpodConfig(
        gpu_type=L4, volume_gb=20, container_disk_gb=70, cuda_versions=["12.8"], ports=["6006/http"], template="t1",
        image="me/mine:1", market=Market.on_demand,
    )  # fmt: skip
    platform = RunpodPlatform(".", config)
    facts = {"gpu_count": 2, "bids": {}, "volume": None, "fitting": None, "balance_usd": None,
             "spent_usd_per_hour": None}  # fmt: skip
    quote = Quote((Offer("runpod", L4, "on_demand", "secure"),), None, facts)
    plan = platform.plan(spec, quote, 3)
    asked, _ = plan.requests
    assert asked["arguments"] == {
        "name": "runctl-one-a3-ea89b40e",
        "imageName": "me/mine:1", "gpuTypeId": L4, "gpuCount": 2, "cloudType": "SECURE",
        "containerDiskInGb": 70, "volumeInGb": 20, "volumeMountPath": "/workspace", "ports": "22/tcp,6006/http",
        "supportPublicIp": True, "startSsh": True, "allowedCudaVersions": ["12.8"], "templateId": "t1",
        "minVcpuCount": 12,
        "env": [{"key": "PUBLIC_KEY", "value": requests.PUBLIC_KEY},
                {"key": "HF", "value": "{{ RUNPOD_SECRET_hf_token }}"}],
    }  # fmt: skip
    assert "hunter2" not in str(plan.requests)
    assert plan == platform.plan(spec, quote, 3)
    sent = requests.completed(asked, MADE, now=1_000_000.0)
    assert sent["env"][0] == {"key": "PUBLIC_KEY", "value": MADE[requests.PUBLIC_KEY]}
    ends = 1_000_000.0 + 3600 + 900 + spec.checkpoint.grace_s + 600
    assert sent["terminateAfter"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))


def test_a_pod_over_ssh_does_not_wait_for_longer_than_its_launcher_takes(runpod: Desk) -> None:
    for options, comes_s in (({"bring_up": "10m"}, "900"), ({"bring_up": "10m", "template": "t1"}, None)):
        asked = runpod.plan(gpu_type=L4, market=Market.on_demand, **options).requests[0]["arguments"]
        assert {one["key"]: one["value"] for one in asked["env"]}.get("RUNCTL_COMES_S") == comes_s


def test_what_runpod_does_not_tell_is_unknown_and_the_plan_says_so(runpod: Desk) -> None:
    for action in ("gpuTypes", "myself"):
        runpod.cloud.inject(Fault(action, "html", 502, times=9))
    plan = runpod.plan()
    assert {one.price_usd_per_hour for one in plan.offers} == {None}
    assert plan.estimate_usd is plan.estimate_usd_per_hour is None
    assert plan.requests[0]["arguments"]["bidPerGpu"] == requests.LOWEST_BID
    assert sum(one.startswith("unknown: looking at") for one in plan.notes) == 2


def test_a_runpod_that_cannot_be_reached_holds_nothing_up(runpod: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as deaf:  # listens, and its queue is full: a connection is neither made nor refused
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        others = [socket.socket() for _ in range(3)]
        for one in others:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        monkeypatch.setenv("RUNPOD_API_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        plan = runpod.plan(gpu_type=None)
        assert time.monotonic() - began < 10, "a connection alone may take a minute"
        for one in others:
            one.close()
    assert plan.offers[0].machine == "auto"
    assert any("cannot be reached" in note for note in plan.notes)


def test_its_schema_is_its_own() -> None:
    assert issubclass(RunpodPlatform.options, PlatformConfig)
    assert RunpodPlatform.options is RunpodConfig

"""The requests that rent a pod, built from what was looked up and nothing else (pure).

What is secret stands in none of them: they hold names, and RunPod puts its own secrets in their places in the pod.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runctl.errors import PlatformError
from runctl.hosts.secrets import RUNPOD
from runctl.platforms.rented import digest_of, lifetime_s, word_of
from runctl.platforms.runpod.options import MOUNT_PATH, SSH_PORT, RunpodOptions, Transport
from runctl.rundir import run_url
from runctl.spec import LaunchSpec, Offer, Plan

#: RunPod's mutations by market.
CALLS = {"spot": "podRentInterruptable", "on_demand": "podFindAndDeployOnDemand"}
#: Stand where what is made for a run will, or could not be looked up.
PUBLIC_KEY = "(the public key made for this run)"
LOWEST_BID = "(the lowest bid that is accepted)"
UNKNOWN_TYPE = "auto"
#: How a plan's note begins that says what could not be looked up.
UNKNOWN = "unknown: "
#: What two pods need not have in common that are as good as each other.
_UNLIKE = ("name", "bidPerGpu", "env")
#: This machine; once, for a laptop may be called otherwise in another network.
_HERE = socket.gethostname()


def pod_name(run_dir: str, attempt: int) -> str:
    """By which a pod is found again: the same in every process, for one attempt of the run in one run directory.

    Colleagues of one account may each have a run of one id, on machines of their own even below one path.
    """
    whose = run_dir if "://" in run_dir else f"{_HERE}:{run_dir}"
    return f"runctl-{run_dir.rsplit('/', 1)[-1]}-a{attempt}-{word_of(whose)}"


def name_of(plan: Plan) -> str:
    """The name of the pod that a plan asks for, which may be an earlier runctl's plan, or one made elsewhere."""
    asked = (one["arguments"]["name"] for one in plan.requests if one["call"] in CALLS.values())
    return next(asked, None) or pod_name(plan.run_dir, plan.attempt)


def rent(
    spec: LaunchSpec, options: RunpodOptions, attempt: int, offer: Offer, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The mutation for one offer.

    Args:
        spec: what is to run.
        options: the platform's.
        attempt: its number.
        offer: type of GPU, market, cloud (`region`), data center (`zone`).
        facts: what was looked up: `gpu_count`, `bids`, `volume`.

    Returns:
        `call` and its `arguments`; `lives_s` after its rent RunPod ends the pod if nobody has.
    """
    count = facts["gpu_count"]
    over_ssh = options.transport is Transport.ssh
    arguments: dict[str, Any] = {
        "name": pod_name(run_url(spec.run.root, spec.run.id), attempt),
        "imageName": options.image,
        "gpuTypeId": offer.machine,
        "gpuCount": count,
        "cloudType": str(offer.region).upper(),
        "containerDiskInGb": options.container_disk_gb,
        "volumeInGb": options.volume_gb,
        "ports": ",".join(one for one in options.ports if over_ssh or one != SSH_PORT),
        "supportPublicIp": over_ssh,
        "startSsh": over_ssh,
        "env": _env(spec, over_ssh),
    }
    if options.volume_gb or facts["volume"] is not None:
        arguments["volumeMountPath"] = MOUNT_PATH
    if facts["volume"] is not None:
        arguments["networkVolumeId"] = facts["volume"]
    if offer.zone is not None:
        arguments["dataCenterId"] = offer.zone
    if options.cuda_versions:
        arguments["allowedCudaVersions"] = list(options.cuda_versions)
    if options.template is not None:
        arguments["templateId"] = options.template
    if spec.resources.cpus is not None:
        arguments["minVcpuCount"] = spec.resources.cpus
    if offer.market == "spot":
        bid = facts["bids"].get(f"{offer.machine}/{offer.region}")
        if options.bid_usd_per_hour is not None:
            bid = options.bid_usd_per_hour / count
        arguments["bidPerGpu"] = LOWEST_BID if bid is None else bid
    return {"call": CALLS[offer.market], "lives_s": lifetime_s(spec, options.bring_up_s), "arguments": arguments}


def likeness(plan: Plan, offer: Offer) -> str | None:
    """By which pods are known that are as good as each other for whoever comes next; None if nothing is rented.

    Args:
        plan: with a request for
        offer: one of its own, at whatever price.
    """
    request = of_offer(plan, offer)
    if request is None:
        return None
    arguments = {key: value for key, value in request["arguments"].items() if key not in _UNLIKE}
    return digest_of(request["call"], arguments, [one for one in request["arguments"]["env"] if not _is_ours(one)])


def of_offer(plan: Plan, offer: Offer) -> dict[str, Any] | None:
    """A plan's request for an offer, at whatever price; None if there is none."""
    for request in plan.requests:
        if request["call"] in CALLS.values():
            asked = plan.offers[request["offer"]]
            if replace(asked, price_usd_per_hour=offer.price_usd_per_hour) == offer:
                return request
    return None


def is_known(request: Mapping[str, Any]) -> bool:
    """Whether there is all that a request needs: type and bid could be looked up."""
    arguments = request["arguments"]
    return bool(arguments["gpuTypeId"] != UNKNOWN_TYPE and arguments.get("bidPerGpu") != LOWEST_BID)


def completed(request: Mapping[str, Any], made: Mapping[str, str], now: float | None = None) -> dict[str, Any]:
    """A request's arguments with what was made for the run, and with the time at which RunPod is to end the pod.

    Args:
        request: of a plan.
        made: what stands for the placeholders of this module.
        now: seconds since the epoch.

    Raises:
        PlatformError: for a placeholder for which there is nothing.
    """
    arguments = dict(request["arguments"])
    arguments["env"] = [{**one, "value": _filled(one["value"], made)} for one in arguments["env"]]
    ends_at = (time.time() if now is None else now) + request["lives_s"]
    # RunPod's own dead-man's switch, beside the agent's.
    return {**arguments, "terminateAfter": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_at))}


def _is_ours(variable: Mapping[str, str]) -> bool:
    return variable["key"].startswith("RUNCTL_") or variable["value"] == PUBLIC_KEY


def _filled(value: str, made: Mapping[str, str]) -> str:
    if value != PUBLIC_KEY:
        return value
    if not made.get(value):
        raise PlatformError(f"a pod was to be rented without {value}")
    return made[value]


def _env(spec: LaunchSpec, over_ssh: bool) -> list[dict[str, str]]:
    """What the pod's environment gets beside RunPod's own: no value of the user's, for this text is logged."""
    told = {"PUBLIC_KEY": PUBLIC_KEY} if over_ssh else {}
    for name, kept in spec.secrets.items():
        if kept.startswith(RUNPOD):
            told[name] = f"{{{{ RUNPOD_SECRET_{kept.removeprefix(RUNPOD)} }}}}"
    return [{"key": name, "value": value} for name, value in told.items()]

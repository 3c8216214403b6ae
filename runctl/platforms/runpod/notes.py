"""What people should know of a plan on RunPod before they say yes (pure)."""

from __future__ import annotations

from runctl.checkpoint.transfer import readable
from runctl.platforms.runpod.options import RunpodOptions
from runctl.spec import LaunchSpec, Quote


def of_bid(quote: Quote, bid: float | None) -> tuple[str, ...]:
    """Where a bid is too low just now."""
    if bid is None:
        return ()
    of_gpu = bid / quote.facts["gpu_count"]
    low = [f"{where} at {least:g} USD a GPU" for where, least in quote.facts["bids"].items() if (least or 0.0) > of_gpu]
    return (f"platform.bid_usd_per_hour={bid:g} is below the lowest bid for {', '.join(low)}",) if low else ()


def of_balance(quote: Quote, price: float, lives_s: float) -> tuple[str, ...]:
    """What the account has left, and whether that lasts: when it is used up, RunPod stops every pod."""
    balance = quote.facts["balance_usd"]
    if balance is None:
        return ()
    has = f"balance: {balance:.2f} USD"
    per_hour = price + (quote.facts["spent_usd_per_hour"] or 0.0)
    if per_hour <= 0 or per_hour * lives_s / 3600 <= balance:
        return (has,)
    return (
        f"{has}, which lasts for {balance / per_hour:.1f} h at {per_hour:.2f} USD an hour and not for the "
        f"{lives_s / 3600:.1f} h of limits.max_time and what goes with it: then RunPod stops every pod; add to it",
    )


def of_project(quote: Quote) -> tuple[str, ...]:
    """How much is sent."""
    size = quote.facts.get("project_bytes")
    return () if size is None else (f"the project: {readable(size)} packed",)


def of_fetching(spec: LaunchSpec) -> tuple[str, ...]:
    """With what a pod fetches that nobody can log in to."""
    keys = [kept for name, kept in spec.secrets.items() if name.startswith("AWS_")]
    return (f"the pod fetches the project from {spec.run.root} with RunPod's secrets {', '.join(keys)}; no SSH",)


def of_mirror(options: RunpodOptions, spec: LaunchSpec) -> tuple[str, ...]:
    """What is at stake without object storage."""
    survives = (
        "the pod's network volume keeps its checkpoints"
        if options.network_volume is not None
        else "a checkpoint survives its pod only once it has been brought here"
    )
    if spec.checkpoint.url is not None:
        survives = "checkpoints go to checkpoint.url, everything else is brought here"
    return (
        f"no object storage: {survives}, over SSH, while this launcher runs; after its end a pod waits for "
        f"{options.collect_s / 60:g} minutes to be emptied (platform.collect)",
    )

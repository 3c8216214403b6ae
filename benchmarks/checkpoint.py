"""What checkpoints cost a training, against the other ways of taking them.

    python benchmarks/checkpoint.py [SIZES_GB, such as 0.1,1,4] [ROUNDS] [SIZE_GB_OF_THE_GPU'S_MODEL]

1. How long the loop waits for a save, and what memory that takes. One process, one thread, float32 tensors. Each way
   is asked for a save, and the next comes once that one is on disk. `memcpy` is the limit: the same bytes into buffers
   that exist and have been touched. Goals: at 1 GB at most 1.3 times memcpy's wait and below every peer's; memory
   beyond the training's own of at most the state and 512 MB.
2. The same for saves that come faster than they can be written: what is deferred, waited for or queued.
3. The same as 1 on a GPU, for a model in bfloat16 with Adam's state; the limit is a copy into pinned buffers.
4. The step's time beside an upload: at most 1.05 times the time without, for one rank of one thread.
5. What `ck.steps` costs a step at 2 ranks: at most 20 µs.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace

import boundary
import torch
import upload
from objects import object_storage
from stalls import PRESSED, PRESSED_PACE_S, Case, Stalls, WayFailed, measure
from states import TENSORS, bf16_with_adam, float32_weights
from ways import BUCKET, WAYS, missing

STALL_GOAL = 1.3
MEMORY_GOAL_BYTES = 512e6
#: Uploads of so much to a server in Python take so long that more rounds would tell nothing new.
UPLOAD_FEW_FROM_GB, UPLOAD_ROUNDS = 1.0, 1


def main() -> None:
    words = sys.argv[1:]
    sizes = [float(word) for word in (words[0] if words else "0.1,1").split(",")]
    rounds = int(words[1]) if len(words) > 1 else 7
    gpu_gb = float(words[2]) if len(words) > 2 else 7.0
    for size_gb in sizes:
        stall_table(f"{size_gb:g} GB in {TENSORS} tensors", Case(float32_weights, size_gb, "cpu", rounds))
    if torch.cuda.is_available():
        title = f"{torch.cuda.get_device_name(0)}: a model of {gpu_gb:g} GB in bfloat16 and Adam's state"
        stall_table(title, Case(bf16_with_adam, gpu_gb, "cuda", rounds))
    else:
        print("\nThe table for a GPU is skipped: this machine has no CUDA device")
    if reason := missing("torch.save + s3fs"):
        print(f"\nStep time beside an upload is {reason}")
    else:
        upload.main()
    boundary.main()


def stall_table(title: str, case: Case) -> None:
    """Print what each way costs, and what it does when it is pressed."""
    print(f"\n{title}; seconds that the loop waits, and memory beyond the training's own", flush=True)
    head = ("first", "median", "slowest", "x memcpy", "rounds", "deferred", "memory")
    print(f"{'':<28}" + "".join(f"{word:>10}" for word in head))
    rows: dict[str, Stalls] = {}
    for name in WAYS:
        if reason := missing(name):
            print(f"{name:<28} {reason}", flush=True)
            continue
        try:
            rows[name] = measured(name, case)
        except WayFailed as error:
            print(f"{name:<28} {error}", flush=True)
            if name == "runctl":
                raise
        else:
            print(row(name, rows[name]), flush=True)
    limits = [limit for stalls in rows.values() for limit in stalls.limits_s]
    print(f"{'the limit: memcpy':<28}{'':>10}{statistics.median(limits):>10.3f}{max(limits):>10.3f}{1:>9.2f}x")
    verdict(rows)
    pressed(rows)


def measured(name: str, case: Case) -> Stalls:
    """One row's figures, with object storage at hand for a way that needs it."""
    if name != "torch.save + s3fs":
        return measure(name, case, {})
    few = replace(case, rounds=UPLOAD_ROUNDS) if case.size_gb >= UPLOAD_FEW_FROM_GB else case
    # Not idle: here the loop itself waits for it.
    with object_storage(idle=False) as (env, bucket):
        return measure(name, few, {**env, BUCKET: bucket})


def row(name: str, stalls: Stalls) -> str:
    waits = stalls.waits_s
    return (
        f"{name:<28}{stalls.first_s:>10.3f}{statistics.median(waits):>10.3f}{max(waits):>10.3f}"
        f"{stalls.ratio:>9.2f}x{len(waits):>10}{stalls.deferred:>10}{stalls.extra_bytes / 1e9:>7.2f} GB"
    )


def verdict(rows: Mapping[str, Stalls]) -> None:
    """Print whether the goals are met."""
    mine = rows["runctl"]
    wait = statistics.median(mine.waits_s)
    slower = [name for name, row in rows.items() if name != "runctl" and statistics.median(row.waits_s) <= wait]
    bound = mine.state_bytes + MEMORY_GOAL_BYTES
    print(f"runctl waits at most {STALL_GOAL} times memcpy's time: {said(mine.ratio <= STALL_GOAL)}")
    print(f"runctl waits less than every peer: {said(not slower)}{': not than ' + ', '.join(slower) if slower else ''}")
    print(
        f"runctl takes at most the state and 512 MB, {bound / 1e9:.2f} GB: {said(mine.extra_bytes <= bound)}"
        f" ({mine.extra_bytes / 1e9:.2f} GB)"
    )


def pressed(rows: Mapping[str, Stalls]) -> None:
    """Print what the ways do with saves that come too fast."""
    asked = {name: stalls for name, stalls in rows.items() if stalls.pressed_s}
    if not asked:
        return
    print(f"\n{PRESSED} saves asked for {PRESSED_PACE_S:g} s apart, written or not")
    print(f"{'':<28}" + "".join(f"{word:>10}" for word in ("waited", "longest", "deferred", "memory")))
    for name, stalls in asked.items():
        print(
            f"{name:<28}{sum(stalls.pressed_s):>10.3f}{max(stalls.pressed_s):>10.3f}{stalls.pressed_deferred:>10}"
            f"{stalls.pressed_bytes / 1e9:>7.2f} GB"
        )


def said(met: bool) -> str:
    return "yes" if met else "NO"


if __name__ == "__main__":
    main()

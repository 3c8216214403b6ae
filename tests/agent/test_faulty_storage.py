"""A whole launch whose run directory lies behind a network and a storage that fail."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from faulty import KINDS, Proxy
from real_launches import Launcher

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.remote import RemoteCatalog
from runctl.rundir import RunDir

STEPS = 120
STEP_S = 0.1
#: A training that waited for a request that falls silent would wait for ten seconds at least.
BLOCKED_S = 3.0
#: 12 MB: some parts each.
SCRIPT = f"""
    import json, os, time, torch, runctl

    model = torch.nn.Linear(1_000, 3_000)
    ck = runctl.attach(model=model)
    took_s, before = [], time.monotonic()
    for step in ck.steps({STEPS}):
        model(torch.randn(4, 1_000)).sum().backward()
        ck.log(loss=1.0)
        time.sleep({STEP_S})
        now = time.monotonic()
        took_s.append(now - before)
        before = now
    json.dump(took_s, open("took.json", "w"))
"""


class Weather:
    """One request in ten fails in whatever way, and the first that carry a part fall silent for good."""

    def __init__(self, silent: int) -> None:
        self._random = random.Random(1)
        self._lock = threading.Lock()
        self._silent = silent
        self._kinds = itertools.cycle(KINDS)

    def choose(self, method: str, path: str, body: bytes) -> str | None:
        with self._lock:
            if self._silent and method == "PUT" and "data.pt" in path:
                self._silent -= 1
                return "stall"
            return next(self._kinds) if self._random.random() < 0.1 else None


@pytest.fixture
def proxy(s3) -> Iterator[Proxy]:
    proxy = Proxy(s3.port, seed=1)
    yield proxy
    proxy.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_the_training_never_waits_and_every_checkpoint_that_is_named_verifies(
    s3, proxy: Proxy, launcher: Launcher, tmp_path: Path
) -> None:
    root = f"s3://{s3.bucket()}/runs"
    proxy.choose = Weather(silent=2).choose
    code, launch = launcher.run(
        f"run.root={root}", "checkpoint.every=5steps", "checkpoint.keep_last=100", script=SCRIPT, run_id="one",
        env={"AWS_ENDPOINT_URL": proxy.url}, timeout_s=150,
    )  # fmt: skip
    assert code == 0, launch.err
    assert proxy.done["stall"] == 2
    assert all(proxy.done[kind] for kind in KINDS), proxy.done
    took_s = json.loads((launcher.project / "took.json").read_text())
    assert len(took_s) == STEPS
    # The first steps import and allocate.
    assert max(took_s[5:]) < BLOCKED_S
    print(f"slowest step {max(took_s[5:]):.2f} s of {STEP_S} s; {sum(proxy.done.values())} requests failed")

    rundir = RunDir(f"{root}/one")  # past the proxy
    remote = RemoteCatalog(rundir.store)
    assert remote.steps()[-1] == STEPS
    assert (rundir.read_outcome() or {})["checkpoints"] == [manifests.folder_name(step) for step in remote.steps()]
    for step in remote.steps():
        aside = tmp_path / f"aside-{step}"
        aside.mkdir()
        assert remote.fetch(step, aside, threading.Event()).step == step
    assert len([e for e in rundir.metrics() if "loss" in e]) == STEPS, "no line of metrics is lost or doubled"

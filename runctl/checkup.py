"""What launches need of this machine and of the places to which they go, looked at: what `runctl doctor` says.

Nothing is changed, but for one small object that is written and deleted where runs go.
"""

from __future__ import annotations

import email.utils
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from runctl.config.files import state_home
from runctl.errors import ConfigError, NotAllowed, RunctlError
from runctl.hosts.gpus import visible_gpus
from runctl.platforms.aws.doctor import Finding, Health
from runctl.registry import Registry
from runctl.storage import check_place, open_store

_TORCH_S = 120.0
_NETWORK_S = 5.0
#: AWS refuses what was signed by a clock that is wrong by more (docs.aws.amazon.com, "Signature Version 4": 5 minutes).
_SKEW_S = 300.0
_LEAST_FREE_BYTES, _FEW_FREE_BYTES = 1 << 30, 10 << 30
#: What each extra brings, by the module that shows it.
_EXTRAS = {
    "aws": ("boto3", "s3fs"), "runpod": ("runpod", "paramiko"), "drill": ("moto",), "swift": ("swift",),
}  # fmt: skip
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
told = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count() if cuda else 0,
        "names": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "nccl": list(torch.cuda.nccl.version()) if cuda and torch.distributed.is_nccl_available() else None,
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available()}
print(json.dumps(told))
"""


def machine() -> Iterator[Finding]:
    """This machine, one thing after the other."""
    yield _python()
    yield from _torch()
    yield _look("state", _state)
    for name, folder in (("disk here", Path.cwd()), ("disk of temporary files", Path(tempfile.gettempdir()))):
        yield _disk(name, folder)
    for extra, modules in _EXTRAS.items():
        missing = [one for one in modules if importlib.util.find_spec(one) is None]
        if missing:
            yield Finding(f"extra {extra}", Health.ABSENT, f"pip install 'runctl[{extra}]' brings {', '.join(missing)}")
        else:
            yield Finding(f"extra {extra}", Health.OK, ", ".join(modules))


def places() -> Iterator[Finding]:
    """The accounts whose credentials are here, and where their runs go."""
    yield _clock()
    yield from _aws()
    yield _look("runpod", _runpod)


def _look(what: str, look: Callable[[], tuple[Health, str]]) -> Finding:
    try:
        return Finding(what, *look())
    except (ConfigError, NotAllowed) as error:
        return Finding(what, Health.MISSING, str(error))
    except RunctlError as error:
        return Finding(what, Health.UNKNOWN, str(error))


def _python() -> Finding:
    return Finding("Python", Health.OK, f"{sys.version.split()[0]} ({sys.executable})")


def _torch() -> Iterator[Finding]:
    """torch as ranks on this machine would have it: in a process of its own, for it is large and may not even load."""
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", Health.MISSING, "not installed in this Python: pip install torch, or launch from the "
                                               "environment that has it")  # fmt: skip
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_TORCH_S, check=False, cwd="/"
        )
        told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        yield Finding("torch", Health.MISSING, f"cannot be imported: {error}; install it again")
        return
    if told is None:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("torch", Health.MISSING, f"cannot be imported: {said}; install it again")
        return
    yield Finding("torch", Health.OK, f"{told['version']}, CUDA {told['cuda'] or 'none'}")
    yield _gpus(told["gpus"], told["names"], told["cuda"])
    if told["nccl"]:
        yield Finding("NCCL", Health.OK, ".".join(map(str, told["nccl"])))
    elif told["gpus"]:
        yield Finding("NCCL", Health.MISSING, "this torch has none, and GPUs cannot train together: install torch from "
                                              "pytorch.org's index for CUDA")  # fmt: skip
    elif told["gloo"]:
        yield Finding("NCCL", Health.ABSENT, "no GPU here; ranks on processors use gloo, which is there")
    else:
        yield Finding("NCCL", Health.MISSING, "this torch was built without torch.distributed: install another")


def _gpus(of_torch: int, names: list[str], cuda: str | None) -> Finding:
    seen = visible_gpus()
    if of_torch >= seen and of_torch:
        return Finding("GPUs", Health.OK, ", ".join(names))
    if not seen:
        return Finding("GPUs", Health.ABSENT, "none here: trainings run on the processor, or on a rented host")
    why = (
        "this torch is built without CUDA: install one from pytorch.org's index for CUDA"
        if cuda is None
        else f"torch sees {of_torch} of them: its CUDA {cuda} may be too new for the driver (nvidia-smi tells which)"
    )
    return Finding("GPUs", Health.MISSING, f"{seen} in this machine, and {why}")


def _state() -> tuple[Health, str]:
    registry = Registry()
    known = len(registry.entries(limit=1_000_000))
    check_place("XDG_STATE_HOME", str(state_home()))
    return Health.OK, f"{known} runs are known in {registry.path}"


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    told = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free < _LEAST_FREE_BYTES:
        return Finding(name, Health.MISSING, f"{told}: no checkpoint fits; make room, or set TMPDIR or run.root")
    if free < _FEW_FREE_BYTES:
        return Finding(name, Health.UNKNOWN, f"{told}: large checkpoints may not fit")
    return Finding(name, Health.OK, told)


def _clock() -> Finding:
    """This machine's clock against that of AWS, or of the endpoint that stands for it."""
    url = os.environ.get("AWS_ENDPOINT_URL") or "https://sts.amazonaws.com"
    began = time.time()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_NETWORK_S) as answer:
            told = answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        told = error.headers.get("Date")
    except (OSError, ValueError) as error:
        return Finding("clock", Health.UNKNOWN, f"{url} does not answer: {error}")
    try:
        theirs = email.utils.parsedate_to_datetime(told or "").timestamp()
    except (TypeError, ValueError):
        return Finding("clock", Health.UNKNOWN, f"{url} does not tell the time")
    skew_s = (began + time.time()) / 2 - theirs
    if abs(skew_s) > _SKEW_S:
        word = "ahead" if skew_s > 0 else "behind"
        return Finding("clock", Health.MISSING, f"{abs(skew_s):.0f} s {word} of AWS's, which refuses what it signs: "
                                                "set it (sudo timedatectl set-ntp true)")  # fmt: skip
    return Finding("clock", Health.OK, f"within {max(1.0, abs(skew_s)):.0f} s of {url}")


def _aws() -> Iterator[Finding]:
    if importlib.util.find_spec("boto3") is None:
        return  # said among the extras
    from runctl.platforms.aws import AwsPlatform, choices
    from runctl.platforms.aws.clients import Clients
    from runctl.platforms.aws.doctor import Doctor
    from runctl.platforms.aws.options import AwsConfig, AwsOptions
    from runctl.spec import Resources

    clients = Clients()
    if not clients.has_credentials:
        yield Finding("aws", Health.ABSENT, "no credentials here: set AWS_PROFILE, or run `aws sso login` or "
                                            "`aws configure`, then `runctl aws setup`")  # fmt: skip
        return
    root = AwsPlatform.default_root()
    try:
        options = AwsOptions.of(AwsConfig(), choices.region(clients.default_region), attached=True)
        for one in Doctor(clients, options, root, Resources()).findings():
            yield Finding(f"aws: {one.what}", one.health, one.said)
    except RunctlError as error:
        yield Finding("aws", Health.MISSING, str(error))
    if "://" in root:
        yield _look(f"{root}: write and delete", lambda: _written(root))


def _written(root: str) -> tuple[Health, str]:
    store, name = open_store(root), f".doctor-{secrets.token_hex(6)}"
    began = time.monotonic()
    store.write(name, b"written by runctl doctor, to be deleted at once")
    if store.read(name) is None:
        return Health.MISSING, "what was written cannot be read"
    store.delete(name)
    return Health.OK, f"written, read and deleted in {time.monotonic() - began:.1f} s"


def _runpod() -> tuple[Health, str]:
    from runctl.platforms.runpod.api import Api

    api = Api()
    if importlib.util.find_spec("runpod") is None or not api.has_key:
        return Health.ABSENT, "no API key here: make one at https://console.runpod.io/user/settings, set RUNPOD_API_KEY"
    told = api.ask("looking at the account", "query { myself { id clientBalance } }").get("myself") or {}
    balance = told.get("clientBalance")
    if balance is not None and balance <= 0:
        return Health.MISSING, f"its balance is {balance:.2f} USD: RunPod rents nothing; add to it"
    return Health.OK, f"account {told.get('id')}, balance {'?' if balance is None else f'{balance:.2f}'} USD"

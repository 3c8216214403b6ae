"""A secret is found where its scope allows, and in nothing else that a launch makes, sends or keeps."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from whole import BUCKET, LAUNCH, WORDS, Account

from runctl.drill.cloud import Cloud
from runctl.drill.faults import Fault

WORKER, SETUP, BOTH, OTHER = (f"canary-{name}-4be1" for name in ("worker", "setup", "both", "unasked"))
#: Prints digests: a secret that a script prints is the script's own doing.
SCRIPT = """
import hashlib, os
for name in ("WORKER", "SETUP", "BOTH", "OTHER"):
    value = os.environ.get(name)
    print(name, value and hashlib.sha256(value.encode()).hexdigest(), flush=True)
"""
SEEN_BY_SETUP = (
    'printf %s "$WORKER,$SETUP,$BOTH" | sha256sum > "$HOME/setup.txt"; echo "$PYTHONPATH" >> "$HOME/setup.txt"'
)
LAUNCHED = (
    "trainer=single", "script=train.py", "run.id=secret", f"run.root=s3://{BUCKET}/runs",
    f"platform.setup=['{SEEN_BY_SETUP}']",
    "secrets.WORKER=env:MY_WORKER", "secrets.SETUP=env:MY_SETUP", "secrets.BOTH=env:MY_BOTH",
    "secrets_scope.SETUP=setup", "secrets_scope.BOTH=both",
)  # fmt: skip
OWN = {"MY_WORKER": WORKER, "MY_SETUP": SETUP, "MY_BOTH": BOTH, "OTHER": OTHER}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hidden(word: str) -> set[bytes]:
    """A secret as it may stand in what was sent: plain, or in base64 at whatever place it begins there."""
    found = {word.encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"." * shift + word.encode()).rstrip(b"=")
        found.add(encoded[(0, 2, 3)[shift] : None if (shift + len(word)) % 3 == 0 else -1])
    return found


def layers(data: bytes) -> Iterator[bytes]:
    """What was sent or kept, and what it says once it is unpacked or its escapes are undone."""
    yield data
    yield unquote_to_bytes(data)
    if (begin := data.find(b"\x1f\x8b\x08")) >= 0:
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj(31).decompress(data[begin:])


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account whose every request is kept."""
    with Cloud(record=True) as cloud:
        account = Account(cloud, tmp_path)
        yield account
        account.close()


@pytest.fixture
def ssm(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import boto3

    for name, value in account.cloud.environment({}).items():
        monkeypatch.setenv(name, value)
    return boto3.Session().client("ssm")


def environment(cloud: Cloud, folder: Path, **more: str) -> dict[str, str]:
    return cloud.environment({"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(folder), **more})


def parameters(ssm: Any) -> list[str]:
    return [one["Name"] for one in ssm.describe_parameters()["Parameters"]]


def objects(cloud: Cloud) -> dict[str, bytes]:
    import boto3

    s3 = boto3.Session().client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@pytest.mark.slow
def test_it_is_only_where_its_scope_allows(account: Account, ssm: Any) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    env = environment(account.cloud, account.folder, **OWN)
    planned = subprocess.run(
        [str(LAUNCH), *WORDS, *LAUNCHED, "dry_run=true", "output=json"], cwd=account.project, env=env,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    launch = account.start(*LAUNCHED, env=env)
    code = launch.wait(120)
    out, err = account.said(launch)
    assert code == 0, err
    seen = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
    assert seen == {"WORKER": digest(WORKER), "SETUP": "None", "BOTH": digest(BOTH), "OTHER": "None"}
    (instance,) = account.instances("secret")
    told, search = (Path(instance["folder"]) / "home" / "setup.txt").read_text().splitlines()
    assert told.split()[0] == digest(f",{SETUP},{BOTH}"), "setup lines get theirs, and the workers' not"
    assert "runctl" not in search
    assert parameters(ssm) == [], "it is deleted once it has been read"

    texts: dict[str, bytes] = {"plan": planned.stdout.encode(), "terminal": (out + err).encode()}
    sent = {path.name.split(".", 1)[1] for path in account.cloud.requests.iterdir()}
    texts |= objects(account.cloud)
    texts["instance"] = json.dumps(account.cloud.instances()).encode()
    texts["calls"] = json.dumps(account.cloud.calls()).encode()
    for folder in (account.folder, account.cloud.folder):
        texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(name.endswith("spec.json") for name in texts)
    assert any("command-" in name for name in texts), "what SSM was sent is among them"
    assert any(name.endswith("user-data") for name in texts)
    assert {"ec2.RunInstances.request", "s3.PutObject.request", "ssm.SendCommand.request", "imds.get.answer"} <= sent
    found = {
        (word, name.rsplit("/", 1)[-1].partition(".")[2] if "/requests/" in name else name)
        for name, text in texts.items()
        for word in OWN.values()
        if any(shape in layer for layer in layers(text) for shape in hidden(word))
    }
    there_and_back = ("ssm.PutParameter.request", "ssm.GetParameter.answer")
    assert found == {(word, name) for word in (WORKER, SETUP, BOTH) for name in there_and_back}


def test_the_search_would_find_it_wherever_it_were() -> None:
    packed = gzip.compress(f"x={WORKER}".encode())
    for shift in range(3):
        sent = base64.b64encode(b"." * shift + WORKER.encode() + b"!")
        for data in (sent, b"UserData=" + quote(sent).encode(), WORKER.encode(), b"PUT /x\n\n" + packed):
            assert any(shape in layer for layer in layers(data) for shape in hidden(WORKER)), data
    assert not any(shape in packed for shape in hidden(SETUP))


def test_it_is_planned_encrypted_and_by_its_name(account: Account) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    planned = subprocess.run(
        [str(LAUNCH), *WORDS, *LAUNCHED, "dry_run=true", "output=json"], cwd=account.project,
        env=environment(account.cloud, account.folder), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    requests = json.loads(planned.stdout)["plan"]["requests"]
    put = [one for one in requests if one["call"] == "PutParameter"]
    places, names = zip(*(one["arguments"]["Name"].rsplit("/", 1) for one in put), strict=True)
    assert set(names) == {"WORKER", "SETUP", "BOTH"}
    assert re.fullmatch(r"/runctl/secret/a1-[0-9a-f]{8}", *set(places)), "another root's run has another"
    assert {one["arguments"]["Type"] for one in put} == {"SecureString"}


@pytest.mark.slow
def test_what_aws_keeps_already_is_read_there_and_left_there(account: Account, ssm: Any) -> None:
    import boto3

    ssm.put_parameter(Name="/team/worker", Value=WORKER, Type="SecureString")
    boto3.Session().client("secretsmanager").create_secret(Name="team/both", SecretString=BOTH)
    (account.project / "train.py").write_text(SCRIPT)
    launch = account.start(
        "trainer=single", "script=train.py", "run.id=kept", f"run.root=s3://{BUCKET}/runs",
        "secrets.WORKER=ssm:/team/worker", "secrets.BOTH=secretsmanager:team/both",
    )  # fmt: skip
    code = launch.wait(120)
    out, err = account.said(launch)
    assert code == 0, err
    assert f"WORKER {digest(WORKER)}" in out
    assert f"BOTH {digest(BOTH)}" in out
    assert parameters(ssm) == ["/team/worker"]


@pytest.mark.parametrize(
    ("words", "own", "why"),
    [
        (LAUNCHED, {"MY_SETUP": SETUP, "MY_BOTH": BOTH}, "secrets.WORKER=env:MY_WORKER: MY_WORKER is not set"),
        (LAUNCHED, {**OWN, "MY_BOTH": "b" * 4097}, "secrets.BOTH=env:MY_BOTH: longer than the 4096 bytes"),
        ((*LAUNCHED, "secrets_scope.NONE=setup"), OWN, "secrets_scope.NONE: there is no secrets.NONE"),
        ((*LAUNCHED, "secrets_scope.BOTH=all"), OWN, "secrets_scope.BOTH"),
        ((*LAUNCHED, "secrets.a-b=env:OTHER"), OWN, "secrets.a-b: the name is a variable's"),
    ],
)
def test_one_that_cannot_be_sent_is_named_before_anything_is_rented(account: Account, words, own, why: str) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    launch = account.start(*words, env=environment(account.cloud, account.folder, **own))
    assert launch.wait(60) == 2
    _, err = account.said(launch)
    assert why in err
    assert "Traceback" not in err
    assert not any(value in err for value in own.values())
    assert account.cloud.instances() == []


@pytest.mark.slow
def test_a_host_that_may_not_read_it_says_which_right_is_missing(account: Account, ssm: Any) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    refused = Fault("GetParameter", "AccessDeniedException", times=9, skip=1, message="not authorized")
    account.cloud.inject(refused)  # the first is the launcher's, who looks for the image
    words = ("trainer=single", "script=train.py", "run.id=denied", f"run.root=s3://{BUCKET}/runs")
    launch = account.start(
        *words, "secrets.WORKER=env:MY_WORKER", env=environment(account.cloud, account.folder, **OWN)
    )
    assert launch.wait(120) != 0
    _, err = account.said(launch)
    assert "needs the right ssm:GetParameter" in err, err
    assert parameters(ssm) == [], "the launcher deletes what the host could not"
    account.check_that_nothing_runs(20)

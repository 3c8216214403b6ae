"""The ranks' environment on a rented host: made from what the project has, and from the cache the next time."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from channels import MINOR, PLACEHOLDER, SITE, Channel
from indexes import USER, Index, wheel
from waiting import wait_until
from whole import BUCKET, Account

from runctl.drill.cloud import Cloud

TOKEN = "canary-token-77c1"
FEATHERS = dict(
    [
        wheel("feather", "1.2", "VERSION = '1.2'\n", needs=("quill>=1", "torch>=2")),
        wheel("quill", "1.0", "INK = 'blue'\n"),
    ]
)
#: In its first attempt it trains until it is interrupted, and ends at once in its second.
SCRIPT = """
import os, sys, time
import quill, torch
print("prefix", sys.prefix, flush=True)
print("token", os.environ.get("INDEX_TOKEN"), flush=True)
print("attempt", os.environ["RUNCTL_ATTEMPT"], quill.INK, "torch", torch.__version__, flush=True)
while os.environ["RUNCTL_ATTEMPT"] == "1":
    time.sleep(0.1)
print("trained", flush=True)
"""
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))


@pytest.fixture
def index() -> Iterator[Index]:
    server = Index(FEATHERS)
    yield server
    server.close()


@pytest.fixture
def private() -> Iterator[Index]:
    server = Index(FEATHERS, TOKEN)
    yield server
    server.close()


def interrupted_once(account: Account, run_id: str, index: Index, *words: str, **options: Any) -> tuple[str, str]:
    """Launch; once it trains and has kept its environment, take the index away, and the host.

    Returns:
        What was said of both attempts.
    """
    launch = account.start("script=train.py", f"run.id={run_id}", f"run.root=s3://{BUCKET}/runs", *words, **options)

    def trains() -> bool:
        assert launch.poll() is None, account.said(launch)
        return "attempt 1 " in account.said(launch)[0] and "is kept for the next attempt" in "".join(
            account.said(launch)
        )

    wait_until(trains, 60, "it trains")
    (first,) = account.instances(run_id)
    index.close()
    account.cloud.interrupt(first["id"], notice_s=2.0)
    code = launch.wait(90)
    out, err = account.said(launch)
    assert code == 0, out + err
    return out, err


def objects(cloud: Cloud, under: str = "runs/") -> dict[str, bytes]:
    """Every object of the account's, by its key."""
    import boto3

    env = cloud.environment({})
    s3 = boto3.client(
        "s3", endpoint_url=cloud.url, region_name="us-east-1",
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix=under).get("Contents", [])]
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


def environments(cloud: Cloud, run_id: str) -> list[dict[str, Any]]:
    """What the attempts' events say of their environments."""
    lines = [line for text in objects(cloud, f"runs/{run_id}/events").values() for line in text.splitlines()]
    told = [one for one in map(json.loads, lines) if one["event"] == "environment"]
    return sorted(told, key=lambda one: one["attempt"])


@pytest.mark.slow
def test_a_lock_of_uvs_is_followed_and_the_second_attempt_takes_it_from_the_cache(
    account: Account, index: Index
) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    (account.project / "pyproject.toml").write_text(
        '[project]\nname = "bird"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["quill"]\n'
        f'[[tool.uv.index]]\nname = "here"\nurl = "{index.url}"\ndefault = true\n'
    )
    subprocess.run([str(UV), "lock", "--quiet"], cwd=account.project, check=True, timeout=60)
    out, err = interrupted_once(account, "locked", index, "trainer=ddp", "trainer.nproc_per_node=2", "logs.show=rank0")
    assert "trained" in out, err
    first, second = environments(account.cloud, "locked")
    assert (first["source"], second["source"]) == ("made", "cache"), err
    assert first["key"] == second["key"]
    one, other = re.findall(r"^prefix (.*)", out, re.M)
    assert one != other, "each host of the drill has a folder of its own: it was moved"


@pytest.mark.soak
def test_a_private_index_gets_its_token_and_nothing_else_does(account: Account, private: Index) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    (account.project / "requirements.txt").write_text(
        f"--index-url http://{USER}:${{INDEX_TOKEN}}@{private.host}/simple\nfeather\n"
    )
    env = account.cloud.environment({"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(account.folder)})
    words = ("trainer=single", "secrets.INDEX_TOKEN=env:MY_TOKEN", "secrets_scope.INDEX_TOKEN=setup")
    out, err = interrupted_once(account, "private", private, *words, env={**env, "MY_TOKEN": TOKEN})
    first, second = environments(account.cloud, "private")
    assert (first["source"], second["source"]) == ("made", "cache"), out + err
    assert set(private.fetched) == set(FEATHERS), "torch, which feather needs, is the image's"
    assert re.findall(r"^token (.*)", out, re.M) == ["None", "None"], "the ranks do not get it"

    texts = {"terminal": (out + err).encode(), **objects(account.cloud)}
    for name in [name for name in texts if name.endswith(".tar.gz")]:
        with tarfile.open(fileobj=io.BytesIO(texts[name])) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)):
                    texts[f"{name}/{member.name}"] = file.read()
    for path in account.cloud.folder.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes()
    assert any("site-packages/feather.py" in name and ".environments" in name for name in texts)
    assert [name for name, text in texts.items() if TOKEN.encode() in text] == []


@pytest.mark.soak
def test_a_token_that_is_refused_ends_the_attempt_with_the_installers_own_words(
    account: Account, private: Index
) -> None:
    (account.project / "train.py").write_text(SCRIPT)
    (account.project / "requirements.txt").write_text(
        f"--index-url http://{USER}:wrong-{TOKEN}@{private.host}/simple\nfeather\n"
    )
    launch = account.start("trainer=single", "script=train.py", "run.id=refused", f"run.root=s3://{BUCKET}/runs")
    assert launch.wait(60) == 1
    out, err = account.said(launch)
    assert "pip install" in err
    assert "ended with code" in err
    assert "401" in err
    assert f"wrong-{TOKEN}" not in out + err
    assert len(account.instances("refused")) == 1, "it is no interruption"


@pytest.mark.soak  # of an attempt alone it is tried in tests/agent/test_environment_of_ranks.py
def test_an_environment_of_condas_is_made_without_conda_and_moved_to_the_second_host(
    account: Account, index: Index, tmp_path: Path
) -> None:
    if any(shutil.which(name) for name in ("micromamba", "mamba", "conda")):
        pytest.skip("this machine has conda, which would be used")
    channel = Channel(tmp_path / "channel")
    module = f"PLACE = {PLACEHOLDER + '/share'!r}\n".encode()
    channel.add("ink", "2.0", {f"{SITE}/inkwell.py": module}, depends=("python",), text=(f"{SITE}/inkwell.py",))
    (account.project / "train.py").write_text(
        SCRIPT.replace(
            'print("prefix"',
            'import inkwell\nprint("whole", inkwell.PLACE == sys.prefix + "/share",'
            ' open(sys.prefix + "/lib/where.bin", "rb").read().split(b"\\0")[0].decode()[4:]'
            ' == f"{sys.prefix}/lib:{sys.prefix}/share",'
            ' open(sys.prefix + "/lib/where.bin", "rb").read()[-3:], flush=True)\nprint("prefix"',
        )
        + "import feather\n"
    )
    (account.project / "environment.yml").write_text(
        f"name: bird\nchannels:\n  - {channel.url}\ndependencies:\n  - python ={MINOR}\n  - ink\n  - pip\n"
        f"  - pip:\n    - --index-url {index.url}\n    - feather\n"
    )
    out, err = interrupted_once(account, "conda", index, "trainer=single")
    first, second = environments(account.cloud, "conda")
    assert (first["source"], second["source"]) == ("made", "cache"), out + err
    assert re.findall(r"^whole (.*)", out, re.M) == ["True True b'END'"] * 2, out
    one, other = re.findall(r"^prefix (.*)", out, re.M)
    assert one != other

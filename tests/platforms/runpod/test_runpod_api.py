"""The API: values that arrive as they are, keys that are found and never shown, an SDK that leaves no traces."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from renting import A5000, MADE, Desk, with_requests

from runctl.drill.runpod.cloud import KEY
from runctl.errors import ConfigError
from runctl.platforms.runpod import api
from runctl.platforms.runpod.api import Api, literal, mutation

HOSTILE = [
    'quote " quote',
    "back \\ slash \\",
    "line\nline\r\n\ttab",
    'closed", gpuCount: 8, name: "other',
    '"}) { id } podTerminate(input: {podId: "x',
    '"""block"""',
    "ünïcode → 🦆 \u2028 \x7f",
    "bell \x07 and \x1b[31m",
    "$variable {brace} #comment",
    "{{ RUNPOD_SECRET_none }}",
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_a_hostile_value_arrives_as_itself(runpod: Desk, value: str) -> None:
    plan = runpod.plan()
    [first, *_] = plan.requests
    env = [*first["arguments"]["env"], {"key": "WORD", "value": value}]
    hostile = with_requests(plan, env=env, imageName=value, gpuCount=1)
    handle = runpod.platform().submit(hostile)
    [made] = [one for one in runpod.cloud.pods() if one["id"] == handle.address["instance"]]
    assert made["asked"]["imageName"] == value
    assert made["asked"]["env"][-1] == {"key": "WORD", "value": value}
    assert made["asked"]["gpuCount"] == 1
    assert made["asked"]["env"][0] == {"key": "PUBLIC_KEY", "value": next(iter(MADE.values()))}


def test_values_of_every_kind_have_their_literal() -> None:
    told = {"a": None, "b": True, "c": 3, "d": 0.25, "e": ["x", 1], "f": {"g": 'q"'}, "cloudType": "SECURE"}
    wanted = '{a: null, b: true, c: 3, d: 0.25, e: ["x", 1], f: {g: "q\\""}, cloudType: SECURE}'
    assert literal(told) == wanted
    assert mutation("podTerminate", {"podId": "x"}) == 'mutation { podTerminate(input: {podId: "x"}) }'


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "\udc80", "\0", {'a": 1': 1}, {"": 1}, {"cloudType": "ALL}) { id }"}], ids=repr
)
def test_what_cannot_be_written_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be sent to RunPod"):
        literal(value)
    with pytest.raises(TypeError):
        literal(object())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('apikey = "of-runpodctl"\napiurl = "https://api.runpod.io/graphql"\n', "of-runpodctl"),
        ('[default]\napi_key = "of-the-sdk"\n', "of-the-sdk"),
        ("apiurl = 'x'\n", None),
        ("", None),
        (None, None),
    ],
    ids=["runpodctl", "sdk", "none", "empty", "no-file"],
)
def test_the_key_is_found_where_runpods_tools_keep_it(
    text: str | None, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(api.KEY, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if text is not None:
        (tmp_path / ".runpod").mkdir()
        (tmp_path / ".runpod" / "config.toml").write_text(text)
    assert api.key() == found
    monkeypatch.setenv(api.KEY, "of-the-environment")
    assert api.key() == "of-the-environment"


def test_without_a_key_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(api.KEY, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no RunPod API key here; make a key at .* set RUNPOD_API_KEY, or run"):
        Api().ask("looking", "{ myself { id } }")
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod" / "config.toml").write_text('apikey = "s3cret')
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read") as told:
        api.key()
    assert "s3cret" not in str(told.value)


def test_the_root_logger_is_left_as_the_user_had_it() -> None:
    code = """
import logging, os, sys
from runctl.platforms.runpod.api import Api
logging.getLogger().setLevel(logging.ERROR)
os.environ.update(RUNPOD_API_KEY="key-of-nobody", RUNPOD_API_BASE_URL="http://127.0.0.1:9")
try:
    Api().ask("looking", "{ myself { id } }")
except Exception as error:
    print(type(error).__name__, error)
assert "runpod" in sys.modules
print(logging.getLogger().handlers, logging.getLogger().level)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    error, logger = done.stdout.splitlines()
    assert error.startswith("Transient looking: no answer of RunPod's: ConnectionError")
    assert "key-of-nobody" not in done.stdout + done.stderr
    assert logger == f"[] {logging.ERROR}"


def test_a_plan_without_a_key_loads_no_sdk_and_one_with_a_key_knows_the_prices(runpod: Desk, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    words = ["+platform=runpod", "script=train.py", "dry_run=true", "output=json"]
    argv = [sys.executable, "-X", "importtime", "-c", "from runctl.launch import main; main()", *words]
    env = {**os.environ, "HOME": str(tmp_path)}
    without = {name: value for name, value in env.items() if not name.startswith("RUNPOD_")}
    told = {}
    for name, environment in (("without", without), ("with", env)):
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
        assert ("runpod" in loaded) == (name == "with")
        assert not loaded & {"torch", "boto3", "paramiko", "graphql"} or name == "with"
        assert KEY not in done.stdout + done.stderr
        told[name] = json.loads(done.stdout)["plan"]
    assert told["without"]["estimate_usd"] is None
    assert any("there is no RunPod API key here" in note for note in told["without"]["notes"])
    assert told["with"]["estimate_usd_per_hour"] == 0.18
    assert [one["call"] for one in told["with"]["requests"]][:1] == ["podRentInterruptable"]
    assert told["with"]["requests"][0]["arguments"]["gpuTypeId"] == A5000

"""`runctl doctor`: what is there, what is missing with what to do, and what nobody need have."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from time import time
from typing import Any

import pytest
from made import Home

from runctl import checkup
from runctl.platforms.aws.doctor import Finding, Health


def told(home: Home, expect: int = 0) -> dict[str, dict[str, str]]:
    found = json.loads(home.runctl("doctor", "--json", expect=expect).stdout)
    return {one["what"]: one for one in found}


def test_a_machine_without_accounts_lacks_nothing_that_everybody_needs(home: Home, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = told(home)
    assert found["Python"]["health"] == found["torch"]["health"] == found["state"]["health"] == "ok"
    assert found["aws"]["health"] == found["runpod"]["health"] == "absent"
    assert "aws sso login" in found["aws"]["said"]
    assert found["clock"]["health"] == "unknown"
    assert "Nothing is missing." in home.runctl("doctor").stdout


def test_a_full_disk_and_a_torch_that_does_not_load_are_missing_with_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    monkeypatch.setattr(checkup, "_TORCH", "import sys; sys.exit('libcudart.so.13: cannot open')")
    found = told(home, expect=1)
    assert found["torch"]["health"] == found["disk here"]["health"] == "missing"
    assert "libcudart.so.13" in found["torch"]["said"] and "install it again" in found["torch"]["said"]
    assert "make room" in found["disk here"]["said"]
    assert "Missing: torch, disk here" in home.runctl("doctor", expect=1).stdout


@pytest.mark.parametrize(("seen", "of_torch", "cuda", "why"), [(1, 0, None, "without CUDA"), (2, 1, "13.0", "driver")])
def test_gpus_that_torch_does_not_see_are_missing(
    monkeypatch: pytest.MonkeyPatch, seen: int, of_torch: int, cuda: str | None, why: str
) -> None:
    monkeypatch.setattr(checkup, "visible_gpus", lambda: seen)
    found = checkup._gpus(of_torch, ["L4"] * of_torch, cuda)
    assert found.health is Health.MISSING
    assert why in found.said
    assert checkup._gpus(seen, ["L4"] * seen, "12.8").health is Health.OK


def clock(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> Finding:
    """What is said where AWS's clock stands so far behind ours."""

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", formatdate(time() - ahead_s, usegmt=True))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.handle_request, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        return checkup._clock()
    finally:
        server.server_close()


def test_a_clock_that_is_wrong_is_said_with_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock(monkeypatch, 2).health is Health.OK
    wrong = clock(monkeypatch, 900)
    assert wrong.health is Health.MISSING
    assert "900 s ahead" in wrong.said.replace("899", "900").replace("901", "900")
    assert "set-ntp" in wrong.said
    assert "behind" in clock(monkeypatch, -900).said


@pytest.mark.slow
def test_an_account_is_looked_at_as_launches_find_it_and_its_bucket_written_to(home: Home, monkeypatch: Any) -> None:
    from runctl.drill.cloud import Cloud
    from runctl.platforms.aws import choices
    from runctl.platforms.aws.choices import Choices

    with Cloud() as cloud:
        for name, value in cloud.environment({}).items():
            monkeypatch.setenv(name, value)
        cloud.make_bucket("doctor")
        choices.save(Choices("us-east-1", "doctor"))
        found = told(home)
        written = found["s3://doctor/runs: write and delete"]
        assert written["health"] == "ok", written
        assert cloud.read("s3://doctor/runs") is None
        assert {"aws: credentials", "aws: bucket", "aws: SSM in us-east-1"} <= found.keys()
        assert found["clock"]["health"] == "ok"
        choices.save(Choices("us-east-1", "nobodys"))
        lost = told(home, expect=1)
        assert lost["aws: bucket"]["health"] == "missing"

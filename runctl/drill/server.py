"""The cloud's process: one HTTP server on loopback for every service, for IMDS, and for whoever steers the drill.

    python -m runctl.drill.server DIR PORT moto|swift [iam] [record]

It prints one line once it answers. Its end is the end of everything that runs in it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from runctl import processes
from runctl.drill import prices
from runctl.drill.callers import SPOT_ROLE, Callers, role_names, unknown_profile
from runctl.drill.ec2 import ACCOUNT, Ec2, Launched, image_of
from runctl.drill.faults import Fault, Faults, answer
from runctl.drill.guard import Guard, query_error
from runctl.drill.metadata import HOST, LAUNCHER, ROLE, SECRET
from runctl.drill.network import Network
from runctl.drill.recorder import Recorder
from runctl.drill.request import Request
from runctl.drill.sandboxes import Sandbox
from runctl.drill.ssm import Ssm, SsmError
from runctl.drill.swift import Swift
from runctl.encoding import from_data, to_data

Answer = tuple[int, str, bytes]
_JSON = "application/x-amz-json-1.1"
_REGION = "us-east-1"
#: What the drill's account may rent of each family, in virtual processors.
_QUOTA = 1000.0
_ZONES = "abc"


class Server:
    """Answers every request.

    Args:
        root: where sandboxes are made.
        url: of this server.
        s3: answers for S3, if moto does not.
        iam: whether rights are checked.
    """

    def __init__(self, root: Path, url: str, s3: Swift | None, *, iam: bool = False) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._s3 = s3
        self._one_at_a_time = threading.RLock()
        self._faults = Faults()
        self._quotas: dict[str, float] = {}
        self._spot = prices.SpotMarket()
        sandboxes: dict[str, Sandbox] = {}
        self._network = Network()
        self._callers = Callers()
        self._guard = Guard(self._callers, self._one_at_a_time) if iam else None
        self._ssm = Ssm(sandboxes, self._may_report)
        self.ec2 = Ec2(root, url, self._ssm, sandboxes, self._give_keys)
        self._control: dict[str, Callable[[dict[str, str], bytes], Any]] = {
            "instances": lambda _, __: [_shown(one) for one in self.ec2.instances.values()],
            "interrupt": lambda asked, _: self.ec2.interrupt(asked["instance"], float(asked["notice_s"])),
            "rebalance": lambda asked, _: self._rebalance(asked["instance"]),
            "kill": lambda asked, _: self.ec2.kill(asked["instance"]),
            "shutdown": lambda asked, _: self.ec2.instances[asked["instance"]].sandbox.shutdown(asked["words"]),
            "inject": lambda _, body: self._faults.inject(from_data(Fault, json.loads(body))),
            "clear": lambda _, __: self._faults.clear(),
            "quota": lambda asked, _: self._quotas.update({asked["code"]: float(asked["value"])}),
            "price": lambda asked, _: self._spot.change(
                asked["machine"], asked["zone"], float(asked["price"]), float(asked["at"])
            ),
            "subnet": lambda asked, _: self._make_subnet(asked),
            "denied": lambda _, __: to_data(self._guard.denied if self._guard is not None else []),
            "calls": lambda _, __: to_data(self._faults.calls),
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if path.startswith("/-/"):
            status, kind, data = self._steer(path[3:], environ, environ["wsgi.input"].read(length))
        elif path.startswith("/imds/"):
            status, kind, data = self._metadata(path, environ)
        else:
            return self._service(Request.of(environ), start_response)
        start_response(f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(data)))])
        return [data]

    def _steer(self, name: str, environ: dict[str, Any], body: bytes) -> Answer:
        asked = {key: values[0] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        try:
            told = self._control[name](asked, body)
        except KeyError as error:
            return 404, "application/json", json.dumps(str(error)).encode()
        return 200, "application/json", json.dumps(told).encode()

    def _rebalance(self, name: str) -> None:
        self.ec2.instances[name].sandbox.rebalance_at = time.time()

    def _metadata(self, path: str, environ: dict[str, Any]) -> Answer:
        _, _, name, rest = path.split("/", 3)
        one = self.ec2.instances.get(name)
        if one is None or not one.sandbox.alive:
            return 404, "text/plain", b""
        token = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN", "")
        status, data = one.metadata.answer(environ["REQUEST_METHOD"], rest, token)
        return status, "text/plain", data

    def _service(self, request: Request, start_response: Any) -> Iterable[bytes]:
        """A call of AWS's: the faults first, then whoever answers it."""
        service, action, as_json = request.service, request.action, bool(request.target)
        # A fault of the real request is none of its dry run's.
        met = f"DryRun:{action}" if b"DryRun=true" in request.body else action
        fault = self._faults.meet(service, met, request.market, request.path, request.key)
        if fault is not None and fault.delay_s:
            threading.Event().wait(fault.delay_s)
        if fault is not None and fault.code is None:
            fault = None
        if fault is not None and not fault.after:
            if not fault.code:
                return _cut(request.environ)
            request.read()
            return _respond(start_response, answer(fault, service, as_json))
        if self._guard is not None and (refusal := self._guard.refusal(request)) is not None:
            request.read()
            return _respond(start_response, refusal.answer, refusal.headers)
        own = self._own(request)
        if own is None:
            if fault is None and service == "s3":
                return self._from_s3(request, start_response)
            own = self._whole(request)
        if fault is not None:
            return (
                _cut(request.environ) if not fault.code else _respond(start_response, answer(fault, service, as_json))
            )
        return _respond(start_response, own)

    def _from_s3(self, request: Request, start_response: Any) -> Iterable[bytes]:
        """An answer of S3's as it comes; that there is no such object is not told to everybody."""
        from werkzeug.test import run_wsgi_app

        if self._guard is None or request.action not in ("GetObject", "HeadObject"):
            whole: Iterable[bytes] = self._app(request)(request.environ, start_response)
            return whole
        chunks, status, headers = run_wsgi_app(self._app(request), request.environ)
        if status.startswith("404") and (refusal := self._guard.refusal_of_absence(request)) is not None:
            return _respond(start_response, refusal.answer, refusal.headers)
        start_response(status, list(headers))
        return chunks

    def _own(self, request: Request) -> Answer | None:
        """The answer to what is not moto's; None for everything else."""
        action, body, region = request.action, request.body, request.region
        if request.target.startswith("AmazonSSM."):
            return self._from_ssm(action, json.loads(body or b"{}"))
        if request.target.startswith("AWSPriceListService."):
            return 200, _JSON, json.dumps(prices.products(json.loads(body))).encode()
        if request.target.startswith("ServiceQuotasV20190624."):
            code = json.loads(body)["QuotaCode"]
            quota = {"Quota": {"QuotaCode": code, "Value": float(self._quotas.get(code, _QUOTA))}}
            return 200, _JSON, json.dumps(quota).encode()
        if action == "CreateServiceLinkedRole" and SPOT_ROLE in role_names() and b"spot.amazonaws.com" in body:
            text = f"Service role name {SPOT_ROLE} has been taken in this account, please try a different suffix."
            return query_error("InvalidInput", 400, text)
        if request.service != "ec2":
            return None
        with self._one_at_a_time:
            self._network.prepare(region)
        if action == "DescribeSpotPriceHistory":
            return 200, "text/xml", self._spot.history(request.form, [region + zone for zone in _ZONES])
        profile = request.form.get("IamInstanceProfile.Name") or request.form.get("IamInstanceProfile.Arn") or ""
        if action == "RunInstances" and (said := unknown_profile(profile)) is not None:
            return answer(Fault(action, "InvalidParameterValue", message=said), "ec2", as_json=False)
        if action == "RunInstances" and b"DryRun=true" not in body:
            told = self.ec2.run_instances(body, region, lambda: self._whole(request))
            return told if isinstance(told, tuple) else answer(Fault(action, told), "ec2", as_json=False)
        if action == "GetConsoleOutput" and request.form.get("InstanceId") in self.ec2.instances:
            return 200, "text/xml", self.ec2.console(request.form["InstanceId"])
        if action == "TerminateInstances":
            done = self._whole(request)
            if done[0] == 200:
                self.ec2.terminated(re.findall(r"InstanceId\.\d+=(i-[0-9a-f]+)", body.decode()))
            return done
        return None

    def _from_ssm(self, action: str, asked: dict[str, Any]) -> Answer | None:
        name = str(asked.get("Name", ""))
        if action == "GetParameter" and name.startswith("/aws/service/"):
            image = image_of(name)
            if image is None:
                return answer(Fault(action, "ParameterNotFound", message=name), "ssm", as_json=True)
            told = {"Parameter": {"Name": name, "Type": "String", "Value": image, "Version": 1}}
            return 200, _JSON, json.dumps(told).encode()
        if action not in self._ssm.calls:
            return None
        try:
            return 200, _JSON, json.dumps(self._ssm.calls[action](asked)).encode()
        except SsmError as error:
            return answer(Fault(action, error.code, message=str(error)), "ssm", as_json=True)

    def _app(self, request: Request) -> Any:
        if request.service == "s3" and self._s3 is not None:
            return self._s3
        return self._moto.get_application(request.environ)

    def _whole(self, request: Request) -> Answer:
        """An answer, whole. moto's objects are made for one request at a time; only its S3 bears several."""
        from werkzeug.test import run_wsgi_app

        with self._one_at_a_time:
            chunks, status, headers = run_wsgi_app(self._app(request), request.environ, buffered=True)
        return int(status.split()[0]), headers.get("Content-Type", "text/xml"), b"".join(chunks)

    def _may_report(self, name: str) -> bool:
        """Whether an instance's agent can reach SSM, and its role lets it."""
        with self._one_at_a_time:
            allowed = self._guard is None or self._guard.may_report(name)
            return allowed and self._network.reaches_ssm(self.ec2.instances[name].region, name)

    def _give_keys(self, instance: str, profile: str) -> tuple[str, str] | None:
        return (ROLE, HOST) if self._guard is None else self._callers.give_keys(instance, profile)

    def _make_subnet(self, asked: dict[str, str]) -> str:
        endpoints = [name for name in asked.get("endpoints", "").split(",") if name]
        with self._one_at_a_time:
            return self._network.make_subnet(asked["region"], asked["zone"], endpoints)


def _respond(start_response: Any, told: Answer, headers: tuple[tuple[str, str], ...] = ()) -> Iterable[bytes]:
    status, kind, data = told
    start_response(f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(data))), *headers])
    return [data]


def _cut(environ: dict[str, Any]) -> Iterable[bytes]:
    """Close the connection without an answer."""
    import socket

    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("injected: no answer")


def _shown(one: Launched) -> dict[str, Any]:
    return {
        "id": one.id,
        "state": one.state,
        "region": one.region,
        "zone": one.zone,
        "machine": one.machine,
        "market": one.market,
        "tags": one.tags,
        "launched_at": one.launched_at,
        "ended_at": one.ended_at,
        "why": one.why,
        "folder": str(one.sandbox.folder),
    }


def _prepare(iam: bool) -> None:
    """What an account has that launches: an instance profile; where rights are checked, only what AWS puts there."""
    from moto.iam.models import iam_backends

    Callers.prepare()
    if iam:
        return
    backend = iam_backends[ACCOUNT]["aws"]
    backend.create_role("runctl", "{}", "/", None, "", [], "3600")
    backend.create_instance_profile("runctl", "/", [], tags=[])
    backend.add_role_to_instance_profile("runctl", "runctl")


def main() -> int:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *args: Any) -> None:
            pass

    folder, port, options, parent = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[4:], os.getppid()
    swift = Swift(folder / "swift", {LAUNCHER: SECRET, HOST: SECRET}, _REGION) if sys.argv[3] == "swift" else None
    processes.die_with_parent(parent)
    logging.basicConfig(filename=folder / "server.log", level=logging.WARNING)
    os.environ.setdefault("MOTO_ALLOW_NONEXISTENT_REGION", "false")
    web = make_server("127.0.0.1", port, lambda *_: [], threaded=True, request_handler=Handler)
    url = f"http://127.0.0.1:{web.server_port}"
    server = Server(folder, url, swift, iam="iam" in options)
    web.app = Recorder(folder / "requests", server) if "record" in options else server
    _prepare("iam" in options)

    def end(*_: object) -> None:
        threading.Thread(target=web.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    if swift is not None:
        swift.start()
    sys.stdout.write(url + "\n")
    sys.stdout.flush()
    try:
        web.serve_forever()
    finally:
        server.ec2.end_all()
        if swift is not None:
            swift.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

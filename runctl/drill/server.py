"""The cloud's process: one HTTP server on loopback for every service, for IMDS, and for whoever steers the drill.

    python -m runctl.drill.server DIR PORT moto|swift

It prints one line once it answers. Its end is the end of everything that runs in it.
"""

from __future__ import annotations

import io
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
from urllib.parse import parse_qs, unquote

from runctl import processes
from runctl.drill import prices
from runctl.drill.ec2 import ACCOUNT, Ec2, Launched, image_of, machines_asked
from runctl.drill.faults import Fault, Faults, answer
from runctl.drill.metadata import HOST, LAUNCHER, SECRET
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
#: What S3's requests are, by method and query, as far as faults need to tell them apart.
_S3_ACTIONS = (
    ("POST", "uploads", "CreateMultipartUpload"),
    ("POST", "uploadId", "CompleteMultipartUpload"),
    ("POST", "delete", "DeleteObjects"),
    ("PUT", "partNumber", "UploadPart"),
    ("DELETE", "uploadId", "AbortMultipartUpload"),
    ("GET", "list-type", "ListObjectsV2"),
    ("GET", "uploads", "ListMultipartUploads"),
    ("GET", "", "GetObject"),
    ("PUT", "", "PutObject"),
    ("HEAD", "", "HeadObject"),
    ("DELETE", "", "DeleteObject"),
)


class Server:
    """Answers every request.

    Args:
        root: where sandboxes are made.
        url: of this server.
        s3: answers for S3, if moto does not.
    """

    def __init__(self, root: Path, url: str, s3: Swift | None) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._s3 = s3
        self._one_at_a_time = threading.RLock()
        self._faults = Faults()
        self._quotas: dict[str, float] = {}
        sandboxes: dict[str, Sandbox] = {}
        self._ssm = Ssm(sandboxes)
        self.ec2 = Ec2(root, url, self._ssm, sandboxes)
        self._control: dict[str, Callable[[dict[str, str], bytes], Any]] = {
            "instances": lambda _, __: [_shown(one) for one in self.ec2.instances.values()],
            "interrupt": lambda asked, _: self.ec2.interrupt(asked["instance"], float(asked["notice_s"])),
            "rebalance": lambda asked, _: self._rebalance(asked["instance"]),
            "kill": lambda asked, _: self.ec2.kill(asked["instance"]),
            "shutdown": lambda asked, _: self.ec2.instances[asked["instance"]].sandbox.shutdown(asked["words"]),
            "inject": lambda _, body: self._faults.inject(from_data(Fault, json.loads(body))),
            "clear": lambda _, __: self._faults.clear(),
            "quota": lambda asked, _: self._quotas.update({asked["code"]: float(asked["value"])}),
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
            return self._service(environ, start_response, length)
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

    def _service(self, environ: dict[str, Any], start_response: Any, length: int) -> Iterable[bytes]:
        """A call of AWS's: the faults first, then whoever answers it."""
        service, region, key = _scope(environ)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        body: bytes | None = None
        if service != "s3":
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
        action = _action(service, target, environ, body)
        if body is not None and b"DryRun=true" in body:
            action = f"DryRun:{action}"  # a fault of the real one is none of this one's
        market = None
        if action == "RunInstances":
            market = "spot" if b"MarketType=spot" in (body or b"") else "on_demand"
        fault = self._faults.meet(service, action, market, environ.get("PATH_INFO", ""), key)
        if fault is not None and fault.delay_s:
            threading.Event().wait(fault.delay_s)
        if fault is not None and fault.code is None:
            fault = None
        if fault is not None and not fault.after:
            if not fault.code:
                return _cut(environ)
            if service == "s3":
                environ["wsgi.input"].read(length)
            return _respond(start_response, answer(fault, service, bool(target)))
        own = self._own(service, action, target, region, body or b"", environ)
        if own is None:
            if fault is None and service == "s3":
                whole: Iterable[bytes] = self._app(environ, service)(environ, start_response)
                return whole
            own = self._whole(environ, service)
        if fault is not None:
            return _cut(environ) if not fault.code else _respond(start_response, answer(fault, service, bool(target)))
        return _respond(start_response, own)

    def _own(  # noqa: PLR0917 (what a request is)
        self, service: str, action: str, target: str, region: str, body: bytes, environ: dict[str, Any]
    ) -> Answer | None:
        """The answer to what is not moto's; None for everything else."""
        if target.startswith("AmazonSSM."):
            return self._from_ssm(action, json.loads(body or b"{}"))
        if target.startswith("AWSPriceListService."):
            return 200, _JSON, json.dumps(prices.products(json.loads(body))).encode()
        if target.startswith("ServiceQuotasV20190624."):
            code = json.loads(body)["QuotaCode"]
            quota = {"Quota": {"QuotaCode": code, "Value": float(self._quotas.get(code, _QUOTA))}}
            return 200, _JSON, json.dumps(quota).encode()
        if service != "ec2":
            return None
        if action == "DescribeSpotPriceHistory":
            return 200, "text/xml", prices.spot_history(machines_asked(body), [region + zone for zone in _ZONES])
        if action == "RunInstances":
            told = self.ec2.run_instances(body, region, lambda: self._whole(environ, service))
            return told if isinstance(told, tuple) else answer(Fault(action, told), service, as_json=False)
        if action == "TerminateInstances":
            done = self._whole(environ, service)
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

    def _app(self, environ: dict[str, Any], service: str) -> Any:
        return self._s3 if service == "s3" and self._s3 is not None else self._moto.get_application(environ)

    def _whole(self, environ: dict[str, Any], service: str) -> Answer:
        """An answer, whole. moto's objects are made for one request at a time; only its S3 bears several."""
        from werkzeug.test import run_wsgi_app

        with self._one_at_a_time:
            chunks, status, headers = run_wsgi_app(self._app(environ, service), environ, buffered=True)
        return int(status.split()[0]), headers.get("Content-Type", "text/xml"), b"".join(chunks)


def _scope(environ: dict[str, Any]) -> tuple[str, str, str]:
    """Service, region and access key, as the signature names them; without one it is S3's, by a presigned URL."""
    text = environ.get("HTTP_AUTHORIZATION", "") + environ.get("QUERY_STRING", "").replace("%2F", "/")
    found = re.search(r"Credential=([^/]+)/\d+/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request", text)
    return (found[3], found[2], unquote(found[1])) if found else ("s3", "us-east-1", "")


def _action(service: str, target: str, environ: dict[str, Any], body: bytes | None) -> str:
    if target:
        return target.rsplit(".", 1)[-1]
    if service == "s3":
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        method = environ["REQUEST_METHOD"]
        if method == "HEAD" and "/" not in environ.get("PATH_INFO", "").strip("/"):
            return "HeadBucket"
        return next((name for m, key, name in _S3_ACTIONS if m == method and (not key or key in query)), method)
    found = re.search(rb"(?:^|&)Action=(\w+)", body or b"")
    return found[1].decode() if found else "?"


def _respond(start_response: Any, told: Answer) -> Iterable[bytes]:
    status, kind, data = told
    start_response(f"{status} -", [("Content-Type", kind), ("Content-Length", str(len(data)))])
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


def _prepare() -> None:
    """What an account has that launches: an instance profile, and default networks with a way out."""
    from moto.ec2.models import ec2_backends
    from moto.iam.models import iam_backends

    backend = iam_backends[ACCOUNT]["aws"]
    backend.create_role("runctl", "{}", "/", None, "", [], "3600")
    backend.create_instance_profile("runctl", "/", [], tags=[])
    backend.add_role_to_instance_profile("runctl", "runctl")
    for region in ("us-east-1", "us-west-2", "eu-central-1"):
        ec2 = ec2_backends[ACCOUNT][region]
        network = next(iter(ec2.vpcs.values()))
        gateway = ec2.create_internet_gateway()
        ec2.attach_internet_gateway(gateway.id, network.id)
        table = next(one for one in ec2.route_tables.values() if one.vpc_id == network.id)
        ec2.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)


def main() -> int:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *args: Any) -> None:
            pass

    folder, port, parent = Path(sys.argv[1]), int(sys.argv[2]), os.getppid()
    swift = Swift(folder / "swift", {LAUNCHER: SECRET, HOST: SECRET}, _REGION) if sys.argv[3] == "swift" else None
    processes.die_with_parent(parent)
    logging.basicConfig(filename=folder / "server.log", level=logging.WARNING)
    os.environ.setdefault("MOTO_ALLOW_NONEXISTENT_REGION", "false")
    os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    web = make_server("127.0.0.1", port, lambda *_: [], threaded=True, request_handler=Handler)
    url = f"http://127.0.0.1:{web.server_port}"
    server = Server(folder, url, swift)
    web.app = server
    _prepare()

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

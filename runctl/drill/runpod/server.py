"""The process of the drill's RunPod: one HTTP server on loopback, for the API and for whoever steers the drill.

    python -m runctl.drill.runpod.server DIR KEY

It prints one line once it answers. Its end is the end of everything that runs in it.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runctl.drill.faults import Fault, Faults
from runctl.drill.runpod import schema, sshd
from runctl.drill.runpod.account import Account, with_price
from runctl.encoding import from_data, to_data
from runctl.errors import PlatformError

Answer = tuple[int, str, bytes]
_JSON = "application/json"
#: What stands where an answer would, before RunPod's own servers.
_HTML = "<html><head><title>{0} Bad Gateway</title></head><body><center><h1>{0} Bad Gateway</h1></center></body></html>"
#: A fault of this code is a null where the pod would be.
NULL = "null"


class Server:
    """Answers every request.

    Args:
        account: what is steered and rented.
        key: of the account.
    """

    def __init__(self, account: Account, key: str) -> None:
        self._account = account
        self._key = key
        self._faults = Faults()
        self._control: dict[str, Callable[[dict[str, str], bytes], Any]] = {
            "pods": lambda _, __: [one.shown() for one in account.pods.values()],
            "interrupt": lambda asked, _: account.pods[asked["pod"]].interrupt(),
            "kill": lambda asked, _: account.pods[asked["pod"]].end("terminated", "its machine is gone"),
            "restart": lambda asked, _: account.pods[asked["pod"]].restart(after_s=float(asked["after_s"])),
            "host_key": lambda asked, _: account.pods[asked["pod"]].new_host_key(),
            "cut": lambda asked, _: account.pods[asked["pod"]].cut(),
            "market": lambda _, body: self._set_market(**json.loads(body)),
            "balance": lambda asked, _: setattr(account, "balance", float(asked["usd"])),
            "secret": lambda asked, _: account.secrets.update({asked["name"]: asked["value"]}),
            "unmade": lambda asked, _: account.unmade.update({asked["variable"]: asked["value"]}),
            "volume": lambda asked, _: account.make_volume(asked["name"], asked["data_center"], int(asked["size"])),
            "inject": lambda _, body: self._faults.inject(from_data(Fault, json.loads(body))),
            "clear": lambda _, __: self._faults.clear(),
            "calls": lambda _, __: to_data(self._faults.calls),
        }

    def steer(self, name: str, asked: dict[str, str], body: bytes) -> Answer:
        """What the drill's own client asks."""
        try:
            told = self._control[name](asked, body)
        except (KeyError, TypeError) as error:
            return 404, _JSON, json.dumps(str(error)).encode()
        return 200, _JSON, json.dumps(told).encode()

    def ask(self, key: str, body: bytes) -> Answer | None:
        """A call of RunPod's: the faults first, then the schema.

        Returns:
            None for a connection that is closed without an answer.
        """
        try:
            asked = json.loads(body)
            query = str(asked["query"])
        except (ValueError, KeyError, TypeError):
            return 400, _JSON, b'{"errors":[{"message":"POST body missing."}]}'
        action = schema.action_of(query)
        fault = self._faults.meet("runpod", action, schema.MARKETS.get(action), key=key)
        if fault is not None and fault.delay_s:
            time.sleep(fault.delay_s)
        if fault is not None and fault.code is not None and not fault.after:
            return _answer(fault)
        of_pod = next((one for one in self._account.living() if one.key == key), None)
        if key != self._key and of_pod is None:
            return _answer(Fault(action, "Unauthorized", 401))
        told = schema.execute(self._account, query, asked.get("variables"), of_pod)
        if fault is not None and fault.code is not None:
            return _answer(fault)
        return (400 if told.get("data") is None else 200), _JSON, json.dumps(told).encode()

    def _set_market(self, gpu: str, **changed: Any) -> None:
        self._account.gpus[gpu] = with_price(self._account.gpus[gpu], **changed)


def _answer(fault: Fault) -> Answer | None:
    """A fault as RunPod would answer it."""
    if not fault.code:
        return None
    if fault.code == NULL:
        return 200, _JSON, json.dumps({"data": {fault.action: None}}).encode()
    if fault.status >= 500:
        return fault.status, "text/html", _HTML.format(fault.status).encode()
    told = {"errors": [{"message": fault.message or fault.code}], "data": None}
    return fault.status, _JSON, json.dumps(told).encode()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            where = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = {name: values[0] for name, values in parse_qs(where.query, keep_blank_values=True).items()}
            if where.path.startswith("/-/"):
                answer: Answer | None = server.steer(where.path[3:], asked, body)
            elif where.path == "/graphql":
                key = self.headers.get("Authorization", "").removeprefix("Bearer ") or asked.get("api_key", "")
                answer = server.ask(key, body)
            else:
                answer = 404, "text/plain", b"no such path"
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer[0])
            self.send_header("Content-Type", answer[1])
            self.send_header("Content-Length", str(len(answer[2])))
            self.end_headers()
            self.wfile.write(answer[2])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> int:
    """Serve until SIGTERM or the end of the input, which is that of whoever holds the drill."""
    folder, key = Path(sys.argv[1]), sys.argv[2]
    try:
        ready = sshd.ready()
    except PlatformError as error:
        sys.stdout.write(f"{' '.join(str(error).split())}\n")
        return 1
    web = _Http(("127.0.0.1", 0), BaseHTTPRequestHandler)
    account = Account(folder, f"http://127.0.0.1:{web.server_port}", ready)
    web.RequestHandlerClass = _handler(Server(account, key))

    def end(*_: object) -> None:
        threading.Thread(target=web.shutdown, daemon=True).start()

    def until_alone() -> None:
        sys.stdin.read()
        end()

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=until_alone, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{web.server_port} {ready.user}\n")
    sys.stdout.flush()
    try:
        web.serve_forever(poll_interval=0.05)
    finally:
        account.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())

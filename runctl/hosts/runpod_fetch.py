"""What a pod runs that nobody can log in to: it fetches its attempt's orders from object storage and starts the keeper.

It comes with the request for the pod: one file, the standard library, Python 3.8 or newer. The keys are RunPod's
secrets, which RunPod puts into the environment; every request is signed here, so that no link that opens anything
stands in the request for the pod. A pod whose orders do not come in time asks `runpod_boot` for its end. One that stays
for other runs looks for the next orders beside its first ones.

Source of the signature: docs.aws.amazon.com, "Authenticating Requests: Using Query Parameters (AWS Signature Version
4)"; stores that speak S3 take the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_UNFILLED = "{{ RUNPOD_SECRET_"
#: No link is good for longer (S3's own limit).
_LONGEST_S = 604800
_LOOK_S, _TIMEOUT_S = 2.0, 30.0
#: Ours alone, and nothing for what the keeper starts.
_OURS = ("RUNCTL_BOOT", "RUNCTL_FETCH", "RUNCTL_START", "RUNCTL_ORDERS", "RUNCTL_BRING_UP_S")


class Signer:
    """Makes links to objects, each good for one operation.

    Args:
        env: keys, region and endpoint, as the AWS command line reads them.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"

    def link(self, method: str, url: str, lives_s: float, now: float | None = None) -> str:
        """A link to `s3://bucket/key`.

        Args:
            method: GET or PUT.
            url: of the object.
            lives_s: how long it is good (seconds).
            now: seconds since the epoch.
        """
        parts = urllib.parse.urlsplit(url)
        base = urllib.parse.urlsplit(self._base(parts.netloc))
        key = url.split("/", 3)[3]
        path = urllib.parse.quote(f"{base.path.rstrip('/')}/{key}", safe="/-_.~")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        asked = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self._env[_KEYS[0]]}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(int(min(max(lives_s, 60.0), _LONGEST_S))),
            "X-Amz-SignedHeaders": "host",
        }
        if self._env.get("AWS_SESSION_TOKEN"):
            asked["X-Amz-Security-Token"] = self._env["AWS_SESSION_TOKEN"]
        query = "&".join(f"{name}={urllib.parse.quote(asked[name], safe='-_.~')}" for name in sorted(asked))
        request = f"{method}\n{path}\n{query}\nhost:{base.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signing = ("AWS4" + self._env[_KEYS[1]]).encode()
        for word in (stamp[:8], self.region, "s3", "aws4_request"):
            signing = hmac.new(signing, word.encode(), hashlib.sha256).digest()
        signature = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
        return f"{base.scheme}://{base.netloc}{path}?{query}&X-Amz-Signature={signature}"

    def _base(self, bucket: str) -> str:
        endpoint = self._env.get("AWS_ENDPOINT_URL_S3") or self._env.get("AWS_ENDPOINT_URL")
        if endpoint:
            return f"{endpoint.rstrip('/')}/{bucket}"
        host = f"s3.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")
        return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"


def fetch(signer: Signer, url: str) -> bytes:
    """An object's bytes; a bucket of another region is asked there.

    Raises:
        OSError, http.client.HTTPException: if it cannot be had.
    """
    try:
        return _get(signer.link("GET", url, 300))
    except urllib.error.HTTPError as error:
        region = error.headers.get("x-amz-bucket-region") or signer.region
        if region == signer.region:
            raise
        signer.region = region
    return _get(signer.link("GET", url, 300))


def _get(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=_TIMEOUT_S) as answer:
        data: bytes = answer.read()
    return data


def wait_for_orders(
    signer: Signer, url: str, pod: str, until: float, after: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The orders of this pod, once they lie there; None if they have not come by then.

    Args:
        signer: makes links.
        url: where they are to lie.
        pod: this one.
        until: seconds since the epoch.
        after: orders that were carried out before: others are waited for.
    """
    said = ""
    while time.time() < until:
        try:
            orders: dict[str, Any] = json.loads(fetch(signer, url))
            if orders["instance"] == pod and (after is None or _which(orders) != _which(after)):
                return orders
            why = "the orders there are another pod's, or carried out"
        except urllib.error.HTTPError as error:
            # Whoever may not list a bucket is told 403 of what is not there yet.
            why = f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"
        if why != said:
            said = why
            say(f"waiting for {url}: {why}")
        time.sleep(_LOOK_S)
    return None


def _which(orders: dict[str, Any]) -> tuple[str, int]:
    return orders["run_id"], orders["attempt"]


def has_ended(orders: dict[str, Any], root: Path) -> bool:
    """Whether the keeper of an attempt has ended, which says so last of all."""
    return Path(root, orders["run_id"], f"a{orders['attempt']}", "ended.json").exists()


def begin(orders: dict[str, Any], signer: Signer, root: Path, env: Mapping[str, str]) -> None:
    """Put down what the keeper needs, and start it.

    Args:
        orders: with the programs, and with `s3://` where links are to stand.
        signer: makes those.
        root: for all that is runctl's on this pod.
        env: of the keeper.
    """
    home = root / orders["run_id"] / f"a{orders['attempt']}"
    (home / "bin").mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    for name, text in orders.pop("programs").items():
        (home / name).write_text(text)
        (home / name).chmod(0o700)
    lives_s = orders["deadline"] - time.time()
    for file in orders["files"]:
        file["url"] = signer.link("GET", file["url"], lives_s)
    orders["log_url"] = signer.link("PUT", orders["log_url"], lives_s)
    aside = home / ".tmp-host.json"
    aside.touch(0o600)
    aside.write_text(json.dumps(orders))
    aside.replace(home / "host.json")
    own = {name: value for name, value in env.items() if name not in _OURS}
    own["PATH"] = f"{home / 'bin'}{os.pathsep}{own.get('PATH', os.defpath)}"
    subprocess.run([sys.executable, str(home / "keeper.py"), "start", str(home)], env=own, check=True)


def say(text: str) -> None:
    """A line for the container's log, which RunPod's console shows."""
    sys.stdout.write(time.strftime("%Y-%m-%dT%H:%M:%SZ runctl: ", time.gmtime()) + text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Fetch and start, one attempt after the other; then stay: a container whose first process ends starts again."""
    env = dict(os.environ)
    root = Path(env.get("RUNCTL_HOST_ROOT", "/var/lib/runctl"))
    root.mkdir(parents=True, exist_ok=True)
    if list(root.glob("*/a*/started")):
        say("this container was started again: what ran in it is lost, and its pod ends soon")
    elif missing := [name for name in _KEYS if not env.get(name) or env[name].startswith(_UNFILLED)]:
        say(
            f"{', '.join(missing)}: RunPod has no secret of the name that was given; see console.runpod.io/user/secrets"
        )
        (root / "end").touch()
    else:
        try:
            signer = Signer(env)
            until = time.time() + float(env["RUNCTL_BRING_UP_S"])
            orders = wait_for_orders(signer, env["RUNCTL_ORDERS"], env["RUNPOD_POD_ID"], until)
            if orders is None:
                say("they did not come in time; this pod ends")
                (root / "end").touch()
            while orders is not None:
                begin(orders, signer, root, env)
                if not orders["keep_warm_s"]:
                    break
                while not has_ended(orders, root):
                    time.sleep(_LOOK_S)
                # What ends a pod to which nobody comes is the time that its keeper has set.
                following = env["RUNCTL_ORDERS"].rpartition("/")[0] + "/next.json"
                orders = wait_for_orders(signer, following, env["RUNPOD_POD_ID"], math.inf, after=orders)
        except Exception as error:  # noqa: BLE001 (whatever it is, the pod must not stay)
            say(f"{type(error).__name__}: {error}; this pod ends")
            with contextlib.suppress(OSError):
                (root / "end").touch()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()

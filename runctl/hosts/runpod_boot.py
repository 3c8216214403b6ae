"""What a pod's container runs beside its start: it ends the pod at its deadline, whatever becomes of everything else.

It comes with the request for the pod, before there is any way in, and stays one short file for that. A container that
starts again has lost what ran in it, and nobody goes on with that in there: such a pod ends soon. So does one in which
nobody has started a keeper in time, for its launcher may be gone. One that cannot begin says so by a file named `end`.
"""

import contextlib
import json
import os
import pathlib
import signal
import time
import urllib.request

AGAIN_S = 60.0
LOOK_S = 1.0

os.setsid()
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
env = os.environ
root = pathlib.Path(env.get("RUNCTL_HOST_ROOT", "/var/lib/runctl"))
since = time.time()
# Where nothing can be written or read, for want of rights or of space, it counts from here.
with contextlib.suppress(OSError, ValueError):
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (root / "booted").open("x") as file:
        file.write(str(since))
    since = float((root / "booted").read_text() or since)
ends_at = since + float(env["RUNCTL_LIVES_S"])
comes_by = since + float(env.get("RUNCTL_COMES_S", "inf"))
if list(root.glob("*/a*/started")):
    ends_at = min(ends_at, time.time() + float(env["RUNCTL_RESTARTED_S"]))
while time.time() < ends_at and not os.path.exists(root / "end"):  # noqa: PTH110 (of Path, 3.8's may raise)
    if time.time() > comes_by:
        if not list(root.glob("*/a*/started")):
            break
        comes_by = ends_at  # the keeper sees to the rest, also where another run comes after this one
    time.sleep(min(LOOK_S, max(0.0, ends_at - time.time())))
query = "mutation End($input: PodTerminateInput!) { podTerminate(input: $input) }"
asked = {"query": query, "variables": {"input": {"podId": env["RUNPOD_POD_ID"]}}}
headers = {
    "Content-Type": "application/json",
    "User-Agent": "runctl",
    "Authorization": "Bearer " + env["RUNPOD_API_KEY"],
}
url = env.get("RUNPOD_API_BASE_URL", "https://api.runpod.io").rstrip("/") + "/graphql"
while True:
    with contextlib.suppress(Exception):  # nothing else ends what costs money
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(asked).encode(), headers), timeout=30).close()
    os.system("runpodctl remove pod $RUNPOD_POD_ID > /dev/null 2>&1")
    time.sleep(AGAIN_S)

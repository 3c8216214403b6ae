"""What a pod finds in its image: the start script, what a session is led to, `runpodctl`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from runctl.drill.runpod.sshd import Sshd

_SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/etc/host_key
AuthorizedKeysFile {folder}/etc/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowAgentForwarding no
MaxStartups 100
PrintMotd no
ForceCommand {folder}/bin/session
Subsystem sftp {sftp_server}
"""
#: As in RunPod's own images: sshd if there is a key, and then nothing for ever.
_START = """#!/bin/sh
{sshd}while :; do sleep 1000 & wait $!; done
"""
_SESSION = """#!/bin/sh
[ -n "$SSH_ORIGINAL_COMMAND" ] && set -- -c "$SSH_ORIGINAL_COMMAND"
cd {home} && exec /usr/bin/env -i {variables} SSH_CONNECTION="$SSH_CONNECTION" TERM="${{TERM:-dumb}}" /bin/sh "$@"
"""
_RUNPODCTL = """#!{python} -IS
import json, os, sys, urllib.request
do = {{"remove": "podTerminate", "stop": "podStop"}}.get(sys.argv[1] if len(sys.argv) == 4 else "")
if do is None or sys.argv[2] != "pod":
    sys.exit("runpodctl of the drill: remove pod ID, stop pod ID")
more = "" if do == "podTerminate" else " {{ id }}"
query = "mutation {{ %s(input: {{podId: %s}})%s }}" % (do, json.dumps(sys.argv[3]), more)
request = urllib.request.Request(
    os.environ["RUNPOD_API_BASE_URL"] + "/graphql",
    json.dumps({{"query": query}}).encode(),
    {{"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["RUNPOD_API_KEY"]}},
)
told = json.load(urllib.request.urlopen(request, timeout=30))
sys.exit(told["errors"][0]["message"] if "errors" in told else 0)
"""


def install(folder: Path, environment: Mapping[str, str], sshd: Sshd, port: int | None) -> None:
    """Write the image's programs into a pod's folder, and the settings of its sshd.

    Args:
        folder: the pod's, with `bin`, `etc` and `home`, and a host key in `etc`.
        environment: of every process in it; PUBLIC_KEY may log in.
        sshd: the server.
        port: on which it listens; None for an image that starts none.
    """
    home = shlex.quote(str(folder / "home"))
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    etc = {
        "authorized_keys": environment.get("PUBLIC_KEY", "").rstrip("\n") + "\n",
        "passwd": f"root:x:{os.geteuid()}:{os.getegid()}:root:{folder / 'home'}:/bin/sh\n"
        "sshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n",
        "group": f"root:x:{os.getegid()}:\nsshd:x:65533:\n",
    }
    start = ""
    if port is not None:
        words = [f"{name}={value}" for name, value in sshd.variables(folder / "etc").items()]
        sftp_server = shlex.join(["env", *words, sshd.sftp_server])
        etc["sshd_config"] = _SSHD.format(port=port, folder=folder, sftp_server=sftp_server)
        config = str(folder / "etc" / "sshd_config")
        start = shlex.join(["env", *words, str(sshd.binary), "-D", "-e", "-f", config]) + " &\n"
    for name, text in etc.items():
        (folder / "etc" / name).write_text(text)
    for name, text in (
        ("start.sh", _START.format(sshd=start)),
        ("session", _SESSION.format(home=home, variables=variables)),
        ("runpodctl", _RUNPODCTL.format(python=sys.executable)),
    ):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)

"""A `docker` that is none: it checks what it is told, and runs the command on this machine as a container would.

What is true of it: which options it is given, which environment, folder, signals and exit code the command gets. What
is not: images, their Python, the border between container and host, GPUs. No test here has seen a real daemon.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from runctl import processes

IMAGE = "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime"
_PROGRAM = """#!{python} -S
import json, os, signal, subprocess, sys
FOLDER = {folder!r}
argv = sys.argv[1:]
with open(FOLDER + "/seen.jsonl", "a") as seen:
    seen.write(json.dumps({{"argv": argv, "environ": dict(os.environ)}}) + "\\n")

def fail(why, code=125):
    sys.stderr.write("docker: " + why + "\\n")
    sys.exit(code)

def pulled(image):
    return FOLDER + "/pulled-" + image.replace("/", "_")

def container(name):
    return FOLDER + "/container-" + name

if argv[:2] == ["image", "inspect"]:
    sys.exit(0 if os.path.exists(pulled(argv[2])) else 1)
if argv[:2] == ["pull", "--quiet"]:
    if "private" in argv[2]:
        fail("pull access denied for " + argv[2], 1)
    open(pulled(argv[2]), "w").close()
    sys.exit(0)
if argv[:2] == ["rm", "--force"]:
    os.kill(int(open(container(argv[2])).read()), signal.SIGKILL)
    sys.exit(0)
if argv[:1] != ["run"]:
    fail("unknown command: " + " ".join(argv))
options, env, flags, rest = {{}}, {{}}, set(), argv[1:]
while rest and rest[0].startswith("-"):
    option, _, value = rest.pop(0).partition("=")
    if option in ("--rm", "--init"):
        flags.add(option)
        continue
    value = value or rest.pop(0)
    if option == "--env":
        if "=" in value:
            fail("a value on the command line: " + value)
        if value in os.environ:
            env[value] = os.environ[value]
    elif option in ("--name", "--user", "--ipc", "--ulimit", "--volume", "--workdir", "--entrypoint", "--gpus"):
        options[option] = [*options.get(option, []), value]
    else:
        fail("unknown flag: " + option)
image, *words = rest
shared, _, inside = options["--volume"][0].partition(":")
workdir = options["--workdir"][0]
if not os.path.exists(pulled(image)):
    fail("no image " + image)
if flags != {{"--rm", "--init"}} or shared != inside or not workdir.startswith(shared + "/"):
    fail("what is outside " + inside + " is not inside")
env = {{"PATH": FOLDER + "/image:/usr/bin:/bin", "HOME": "/tmp", **env}}
process = subprocess.Popen([*options["--entrypoint"], *words], cwd=workdir, env=env, start_new_session=True)
with open(container(options["--name"][0]), "w") as file:
    file.write(str(process.pid))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: process.send_signal(number))
code = process.wait()
os.remove(container(options["--name"][0]))
sys.exit(code if code >= 0 else 128 - code)
"""


class Docker:
    """One of them, in a folder of its own.

    Args:
        folder: of its images and containers; it is made.

    Attributes:
        program: to be put first in a PATH as `docker`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "image").mkdir(parents=True)
        self.program = folder / "docker"
        self.program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
        # The Python of every image, with all that this one has.
        python = folder / "image" / "python3"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        for path in (self.program, python):
            path.chmod(0o755)

    def seen(self, command: str = "run") -> list[dict[str, Any]]:
        """How it was called with a command: `argv` and `environ`."""
        path = self._folder / "seen.jsonl"
        told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [one for one in told if one["argv"][0] == command]

    def containers(self) -> dict[str, int]:
        """What runs: the process of each container, by its name."""
        found = {path.name.removeprefix("container-"): path.read_text() for path in self._folder.glob("container-*")}
        return {name: int(text) for name, text in found.items() if text and processes.lives(int(text))}

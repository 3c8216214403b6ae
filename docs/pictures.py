"""Makes the terminal pictures of the README from real trainings: `python docs/pictures.py`.

An account on loopback rents two hosts that really train handwritten digits; one of them is interrupted and goes on
elsewhere. What `runctl ps`, `monitor` and `cost` show then on a terminal of 80 columns becomes docs/<name>.svg.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runctl.drill.cloud import Cloud
from runctl.rundir import RunDir
from runctl.standing import Standing, look

DOCS = Path(__file__).parent
BIN = Path(sys.executable).parent
COLUMNS = 80
#: Letters that are fetched from elsewhere would be missing where there is no network.
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
LAUNCH = ("+platform=aws", "script=train.py", "trainer=ddp", "trainer.nproc_per_node=1", "logs.show=none")


def main() -> None:
    """Train, look, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder, Cloud() as cloud:
        project = Path(folder, "project")
        project.mkdir()
        script = (DOCS.parent / "examples" / "digits_resume.py").read_text()
        # Slow enough to be looked at, and often enough heard of to have a curve.
        script = script.replace("% 5 == 0", "% 1 == 0").replace(
            "optimizer.step()", "optimizer.step(); time.sleep(0.02)"
        )
        (project / "train.py").write_text(f"import time\n{script}")
        own = {"HOME": folder, "XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}
        env = cloud.environment({**os.environ, **own})
        os.environ.update(env)
        _run(project, env, "runctl", "aws", "setup")
        runs = [
            _launch(project, env, "run.name=digits", "args.epochs=60", "checkpoint.every=60steps"),
            _launch(project, env, "run.name=wide", "args.epochs=60", "args.batch_size=128"),
        ]
        try:
            digits, wide = (_rundir(project, env, name) for name in ("digits", "wide"))
            _until(digits, lambda now: (now.step or 0) > 150)
            _until(wide, lambda now: now.step is not None)
            for one in cloud.instances():
                if one["state"] == "running" and one["tags"].get("runctl:run") == digits.url.rsplit("/", 1)[-1]:
                    cloud.interrupt(one["id"], 60.0)
            _until(digits, lambda now: now.attempt == 2 and now.steps_per_s is not None and len(now.load) > 0)
            for name in ("ps", "monitor", "cost"):
                words = {"monitor": ("runctl", "monitor", "digits")}.get(name, ("runctl", name))
                _picture(name, words, _shown(project, env, *words))
        finally:
            for launch in runs:
                launch.terminate()
            for launch in runs:
                launch.wait(120)


def _launch(project: Path, env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    argv = [str(BIN / "runctl-launch"), *LAUNCH, *words]
    return subprocess.Popen(argv, cwd=project, env=env, stdin=nothing, stdout=nothing, stderr=None)


def _run(project: Path, env: dict[str, str], program: str, *words: str) -> str:
    argv = [str(BIN / program), *words]
    return subprocess.run(argv, cwd=project, env=env, check=True, capture_output=True, text=True, timeout=300).stdout


def _rundir(project: Path, env: dict[str, str], name: str) -> RunDir:
    deadline = time.monotonic() + 120
    while True:
        try:
            told = _run(project, env, "runctl", "show", name)
            return RunDir(re.search(r"^run dir +(\S+)", told, re.M).group(1))  # type: ignore[union-attr]
        except (subprocess.CalledProcessError, AttributeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(2.0)


def _until(rundir: RunDir, reached: Callable[[Standing], bool]) -> None:
    deadline = time.monotonic() + 400
    while not reached(now := look(rundir)):
        if time.monotonic() > deadline or now.state in ("failed", "succeeded"):
            raise SystemExit(f"{now.run_id} is {now.state} at step {now.step}: {now.reason}")
        time.sleep(2.0)


def _shown(project: Path, env: dict[str, str], *words: str) -> str:
    """What a command writes to a terminal."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    env = {name: value for name, value in env.items() if name not in ("NO_COLOR", "COLUMNS")} | {
        "TERM": "xterm-256color"
    }
    process = subprocess.Popen([str(BIN / words[0]), *words[1:]], cwd=project, env=env, stdout=there, stderr=there)
    os.close(there)
    data = b""
    try:
        while piece := os.read(here, 1 << 16):
            data += piece
    except OSError:  # the other end has been closed
        pass
    os.close(here)
    if process.wait(60) != 0:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {data.decode()}")
    return data.decode().replace("\r\n", "\n")


def _picture(name: str, words: tuple[str, ...], shown: str) -> None:
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(f"$ {' '.join(words)}\n{shown.rstrip()}"))
        svg = console.export_svg(title="", unique_id=f"runctl-{name}")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code, monospace", FONTS)
    aside = DOCS / f".tmp-{name}.svg"
    aside.write_text(svg)
    aside.replace(DOCS / f"{name}.svg")
    sys.stdout.write(f"docs/{name}.svg\n")


if __name__ == "__main__":
    main()

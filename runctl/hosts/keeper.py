"""The keeper of a rented host: prepares it, runs the agent, and ends the host afterwards, whatever happened.

    python3 keeper.py start DIR    start the keeper of DIR in the background, unless it was started before
    python3 keeper.py run DIR      be the keeper of DIR
    python3 keeper.py end DIR      see to it that nothing of DIR goes on or begins; exit code 3 if another has the host

Sent to a host on which nothing of ours is installed: one file, the standard library, Python 3.8 or newer. What to do
stands in DIR/host.json, what was done in DIR/bring-up.log, how it ended in DIR/ended.json. The last resort is none of
the keeper's: a shutdown that was scheduled before anything else, for a time after the run's deadline.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

LOG, MORE = "bring-up.log", "RUNCTL_AGENT_NEEDS"  # a variable: requirements of this run's agent besides runctl's own
_TRIES, _TIMEOUT_S, _TAIL_BYTES = 5, 30.0, 256 << 10
_RETRIED = (OSError, http.client.HTTPException)  # urllib's errors and time-outs are OSErrors
_UNSIGNED = partial(re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*").sub, r"\1")  # of a text whose links open things
#: Exit codes of an attempt that was stopped, or lost its host: nobody needs to look at that host.
_STOPPED, _UNFIT = (0, 71, 124, 130, 143), (None, 71)  # and of one after which no other run comes here
_NOTHING, _BUSY = subprocess.DEVNULL, 3  # the exit code of `end` where the host is another attempt's
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
#: A unit of systemd inherits nothing; this is what the agent needs of the host's environment.
_PASSED_ON = re.compile(r"PATH|HOME|LANG|RUNCTL_\w+|AWS_(?!\w*(SECRET|KEY|TOKEN))\w+")
#: A rank that is out of memory must not end its whole unit, and the agent wants a SIGTERM to itself alone.
_UNIT = ("--property=OOMPolicy=continue", "--property=KillMode=mixed", "--property=TasksMax=infinity",
         "--property=LimitMEMLOCK=infinity", "--property=StandardOutput=journal+console")  # fmt: skip
_CONSOLE = os.environ.get("RUNCTL_CONSOLE", "/dev/console")  # the cloud keeps what is said there, at 115,200 baud


class BringUpFailed(Exception):
    """The host could not be prepared; the text says why."""


def start(home: Path) -> int:
    """Start the keeper in the background; nothing is started while it lives, nor after it has ended."""
    with (home / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / "started").exists() or (home / "ended.json").exists():
            say(f"the keeper of {home} was started before, or the attempt was given up")
            return 0
        argv = [sys.executable, str(Path(__file__).resolve()), "run", str(home)]
        unit, code = json.loads((home / "host.json").read_text())["unit"], -1
        settings = [f"--setenv={name}={os.environ[name]}" for name in os.environ if _PASSED_ON.fullmatch(name)]
        words = ["systemd-run", f"--unit={unit}", "--collect", "--quiet", *_UNIT, *settings, *argv]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if Path("/run/systemd/system").is_dir():
                code = subprocess.run(words, stdin=_NOTHING, timeout=60, check=False).returncode
        if code != 0:
            # A session of its own, and no descriptor of ours: a remote shell ends when nobody holds its output.
            subprocess.Popen(argv, stdin=_NOTHING, stdout=_NOTHING, stderr=_NOTHING, cwd="/", start_new_session=True)
        write(home / "started", str(time.time()))
        say(f"the keeper of {home} is started")
    return 0


class Keeper:
    """One host, from its preparation to its end."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.host: dict[str, Any] = {}
        # On disk: /tmp may lie in memory, and this is where copies of checkpoints wait for their upload.
        self.env = {"TMPDIR": str(home.parent.parent / "tmp"), **os.environ}
        self.agent: subprocess.Popen[bytes] | None = None
        self.asked_to_end = self.spoke = False

    def run(self) -> int:
        """Prepare the host, run the agent to its end, and end the host in every case; the agent's exit code."""
        code, error = None, None
        try:
            _on_signals(self._hear)
            with (self.home / LOG).open("ab") as log:
                _ = os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            Path(self.env["TMPDIR"]).mkdir(mode=0o700, exist_ok=True)
            self.host = json.loads((self.home / "host.json").read_text())
            # The dead-man's switch anew: what was scheduled first of all left time to get here, and no more.
            when = f"+{max(1, math.ceil((self.host['deadline'] - time.time()) / 60))}"
            refused = subprocess.run(["shutdown", "-P", when], stdin=_NOTHING, check=False).returncode
            say(f"shutdown -P {when}" + f" was refused with code {refused}" * bool(refused))
            signal.setitimer(signal.ITIMER_REAL, max(1.0, self.host["bring_up_s"]))
            self.env.update(self.host.get("env", {}))
            words, env = self._bring_up()
            logged = (self.home / LOG).stat().st_size
            self.agent = subprocess.Popen(words, cwd=str(self.home / "runctl"), env=env, stdin=_NOTHING)
            signal.setitimer(signal.ITIMER_REAL, 0)
            code = self.agent.wait()
            # One that was killed had no last word; one that ends with 137 tells of a rank that was.
            self.spoke, code = code >= 0, code if code >= 0 else 128 - code
            # An agent that has begun speaks through the run directory: this comes of one that could not.
            unheard = code != 0 and (self.home / LOG).stat().st_size > logged
            say(f"the agent ended with code {code}")
            if unheard:
                self._send_log()
        except BaseException as failed:  # noqa: BLE001 (whatever it is, the host must not stay)
            _on_signals(signal.SIG_IGN)
            kind = "" if isinstance(failed, BringUpFailed) else f"{type(failed).__name__}: "
            error = _UNSIGNED(f"{kind}{failed}")
            with contextlib.suppress(BaseException):
                say(f"bring-up failed: {error}")
                self._send_log()
        finally:
            _on_signals(signal.SIG_IGN)
            self._end_host(code, error)
        return 1 if code is None else code

    def _hear(self, number: int, _frame: Any) -> None:
        """A signal: hand it on to the agent; before there is one, give up."""
        late = number == signal.SIGALRM
        self.asked_to_end = self.asked_to_end or not late
        if self.agent is None:
            _on_signals(signal.SIG_IGN)  # once is enough
            came = f"{signal.Signals(number).name} came while the host was prepared"
            raise BringUpFailed(f"it took longer than bring_up_s={self.host.get('bring_up_s')}" if late else came)
        if not late:
            self.agent.terminate()

    def _bring_up(self) -> tuple[list[str], dict[str, str]]:
        """Do all that comes before the agent; its command and environment."""
        for file in self.host["files"]:
            path = self.home / Path(file["name"]).name
            download(file, path)
            if file.get("unpack_to"):
                unpack(path, self.home / Path(file["unpack_to"]).name)
        wheel = next(self.home.glob("*.whl"), None)
        package, project = self.home / "runctl", self.home / "project"
        for folder in (package, project):
            folder.mkdir(exist_ok=True)
        if wheel is not None:
            shutil.unpack_archive(wheel, package, "zip")
            self._call([sys.executable, str(package / "runctl" / "hosts" / "room.py"), str(self.home)])
        env = {**self.env, "PYTHONPATH": os.pathsep.join(filter(None, [str(package), self.env.get("PYTHONPATH")]))}
        python = self.host.get("agent_python") or self.env.get("RUNCTL_AGENT_PYTHON")
        kept, reader = self.host.get("setup_secrets"), []
        if kept:
            python = python or self._venv(wheel)  # what reads them needs the agent's environment
            reader = [python, "-m", "runctl.hosts.secrets", json.dumps(kept)]
        for number, line in enumerate(self.host["setup"], 1):
            say(f"setup line {number}: {line}")
            if (code := self._call([*reader, "bash", "-c", line], project, env if kept else None)) != 0:
                raise BringUpFailed(f"setup line {number} ended with code {code}: {line}")
        python = python or self._venv(wheel)
        write(self.home / "order.json", json.dumps({**self.host["order"], "project_dir": str(project)}))
        return [python, "-m", "runctl.agent", "--order", str(self.home / "order.json")], env

    def _venv(self, wheel: Path | None) -> str:
        """An environment with what the agent needs: all of the wheel's requirements but torch, which ranks need."""
        names = [sys.executable] * (sys.version_info >= (3, 10)) + [f"python3.{minor}" for minor in range(14, 9, -1)]
        works = (name for name in names if shutil.which(name) and self._call([name, "-c", "import ensurepip"]) == 0)
        needed = (requirements(wheel, self.env.get(MORE, "")) if wheel is not None else []) or ["pip"]
        venv = self.home.parent.parent / f"venv-{hashlib.sha256(' '.join(needed).encode()).hexdigest()[:12]}"
        python, ready = str(venv / "bin" / "python"), venv / "ready"
        pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet", *needed]
        for command in () if ready.exists() else ([next(works, "python3"), "-m", "venv", str(venv)], pip):
            if (code := self._call(command)) != 0:
                why = f"{' '.join(command)} ended with code {code}; install python3-venv in a setup line, or name an"
                raise BringUpFailed(f"no environment for the agent: {why} interpreter that has it all (agent_python)")
        ready.touch()
        return python

    def _call(self, words: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> int:
        """Run a command to its end; an exception of ours ends it with all of its children."""
        where, env = cwd or self.home, env or self.env
        process = subprocess.Popen(words, cwd=where, env=env, stdin=_NOTHING, start_new_session=True)
        try:
            return process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def _send_log(self) -> None:
        """Put the last of the log where the launcher looks for it."""
        with (self.home / LOG).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            data = log.read()
        with contextlib.suppress(OSError), open(_CONSOLE, "ab", buffering=0) as console:  # noqa: PTH123 (a device)
            console.write(data[-8192:])
        for tried in range(_TRIES if self.host.get("log_url") else 0):
            try:
                request = urllib.request.Request(self.host["log_url"], data, {"Content-Type": ""}, method="PUT")
                urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
                return
            except _RETRIED as error:
                say(f"the log could not be sent to {self.host['log_url']}: {error}")
                time.sleep(2.0**tried)

    def _end_host(self, code: int | None, error: str | None) -> None:
        """Leave word of how it ended, and have the host shut down; later if it stays, or somebody is to look."""
        keep_s = 0.0
        with contextlib.suppress(Exception):
            asked, told = self.asked_to_end, {"keep_s": 0, "keep_warm_s": 0, "keep_on_failure_s": 0, **self.host}
            warm_s = told["keep_warm_s"] * (self.spoke and code not in _UNFIT and not asked)  # past the deadline too
            look_s = 0 if asked or code in _STOPPED or warm_s else told["keep_on_failure_s"]
            keep_s = max(warm_s, min(max(look_s, told["keep_s"]), told["deadline"] - time.time()))
        when = "now" if keep_s < 60 else f"+{math.floor(keep_s / 60)}"
        ended = {"agent_exit_code": code, "bring_up_error": error, "ended_at": time.time(), "shutdown": when}
        with contextlib.suppress(OSError):  # a full disk keeps no host
            write(self.home / "ended.json", json.dumps(ended))
        for tried in range(_TRIES):
            with contextlib.suppress(OSError):
                if subprocess.run(["shutdown", "-P", when], stdin=_NOTHING, check=False).returncode == 0:
                    return
            time.sleep(2.0**tried)


def download(file: dict[str, Any], path: Path) -> None:
    """Fetch a file by its link: tried again from where it broke off, and kept only if it is the one that was meant."""
    part = path.with_name(path.name + ".part")
    for tried in range(_TRIES):
        time.sleep(2.0 ** (tried - 1) if tried else 0)
        try:
            begin = part.stat().st_size if part.exists() else 0
            request = urllib.request.Request(file["url"], headers={"Range": f"bytes={begin}-"} if begin else {})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, part.open("ab") as out:
                out.truncate(begin if answer.status == 206 else 0)
                shutil.copyfileobj(answer, out, 1 << 20)
            data, size_bytes = part.read_bytes(), file["size_bytes"]
            if hashlib.sha256(data).hexdigest() == file["sha256"]:
                part.replace(path)
                return say(f"{file['name']}: {size_bytes} bytes")
            why = f"{len(data)} bytes of {size_bytes} came, and their SHA-256 is not the one expected"
            if len(data) >= size_bytes:
                part.unlink()
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code} {error.reason}"
            if error.code == 416:
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise BringUpFailed(f"{file['url']}: {why}; a link that has expired is refused as well") from error
        except _RETRIED as error:
            why = f"{type(error).__name__}: {error}"
        say(f"{file['url']}: {why} (try {tried + 1} of {_TRIES})")
    raise BringUpFailed(f"{file['url']} could not be fetched in {_TRIES} tries: {why}")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar.gz into a folder of its own, from which nothing in it leads out."""
    aside = target.with_name(target.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(aside, filter="data")
            else:
                for member in tar:
                    tar.extract(checked(member, aside), aside)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BringUpFailed(f"{archive.name} cannot be unpacked: {error}") from error
    shutil.rmtree(target, ignore_errors=True)
    aside.replace(target)


def checked(member: tarfile.TarInfo, root: Path) -> tarfile.TarInfo:
    """A member of an archive that stays below `root`, seen with the links that lie there by now; without an owner."""
    top = Path(root).resolve()
    places = [top / member.name]  # an absolute name wins, and is seen
    if member.issym() or member.islnk():
        places.append((places[0].parent if member.issym() else top) / member.linkname)
    plain = member.isfile() or member.isdir() or member.issym() or member.islnk()
    if not plain or any(top not in (place.resolve(), *place.resolve().parents) for place in places):
        raise BringUpFailed(f"the archive holds {member.name!r}, which leads out of its folder or is no file")
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    member.mode &= 0o755
    return member


def requirements(wheel: Path, more: str = "") -> list[str]:
    """What a wheel needs without its extras, but torch; and more."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = more.split() + re.findall(r"^Requires-Dist: *(.+?)\s*$", metadata.split("\n\n")[0], re.M)
    return [one for one in needed if "extra ==" not in one and not re.match(r"torch\b(?![-_.])", one, re.I)]


def write(path: Path, text: str) -> None:
    """Publish a file whole, for this user alone."""
    aside = path.with_name(f".tmp-{path.name}")
    aside.touch(0o600)
    aside.write_text(text)
    aside.replace(path)


def _on_signals(handler: Any) -> None:
    for number in _SIGNALS:
        signal.signal(number, handler)


def say(text: str) -> None:
    """One line for the log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), _UNSIGNED(text), flush=True)  # noqa: T201 (no logging here)


def run(home: Path) -> int:
    """Be the keeper, unless another is or was."""
    with (home / "run.lock").open("w") as lock, (home.parent.parent / "host.lock").open("a") as host:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        write(home / "pid", str(os.getpid()))  # before `ended.json` is looked for: see `end`
        fcntl.flock(host, fcntl.LOCK_EX)  # the keeper before this one has its last word first
        if (home / "ended.json").exists():
            return 0
        Path(host.name).write_text(str(home))
        return Keeper(home).run()


def end(home: Path) -> int:
    """End the attempt, even one that waits for its host or has yet to come here; whether another has the host."""
    with (home / "start.lock").open("w") as lock, (home.parent.parent / "host.lock").open("a") as host:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ended.json").exists():
            # First: a keeper that has not left its pid yet looks for this afterwards.
            write(home / "ended.json", json.dumps({"why": "it was given up", "ended_at": time.time()}))
            with contextlib.suppress(OSError, ValueError):
                pid = int((home / "pid").read_text())
                if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(host, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 0
        return 0 if Path(host.name).read_text() == str(home) else _BUSY


if __name__ == "__main__":
    sys.exit({"start": start, "run": run, "end": end}[sys.argv[1]](Path(sys.argv[2]).resolve()))

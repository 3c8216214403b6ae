"""The process that keeps an environment that was made: packed and carried to the root of runs, at idle priority.

A process of its own and no thread of the agent, as the upload of checkpoints is: only so can it run beside the
training. It reads one line of JSON from its standard input, and says on its standard error what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runctl import processes
from runctl.agent.environment import archive
from runctl.agent.environment.cache import Cache, CacheBroken, Manifest
from runctl.checkpoint.transfer import readable
from runctl.errors import RunctlError

_PACKAGE_DIR = str(Path(__file__).resolve().parents[3])


class Keeping:
    """That process, as the agent sees it.

    Only the main thread may start it, for the process dies with the thread that did.

    Args:
        root: of runs.
        key: of the environment.
        folder: where it lies.
        names: its files.
        seconds: what making it took.
        secrets: values that it must not hold.
        anew: whether to replace what is kept already, which is broken.
    """

    def __init__(
        self, root: str, key: str, folder: Path, names: Sequence[str], *, seconds: float, secrets: Sequence[str],
        anew: bool,
    ) -> None:  # fmt: skip
        self._order = {
            "root": root, "key": key, "folder": str(folder), "names": list(names), "seconds": seconds,
            "secrets": list(secrets), "anew": anew,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def at_work(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin, once."""
        if self._process is not None:
            return
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runctl.agent.environment.keep", str(os.getpid())],
                stdin=subprocess.PIPE, cwd=_PACKAGE_DIR, start_new_session=True,
            )  # fmt: skip
            assert self._process.stdin is not None
            with self._process.stdin as pipe:
                pipe.write(json.dumps(self._order).encode())
        except OSError as error:
            sys.stderr.write(f"runctl: the environment is not kept for the next attempt: {error.strerror}\n")

    def hurry(self) -> None:
        """Let it compete for the processors: nothing trains any more."""
        if self.at_work and self.pid is not None:
            processes.run_when_idle(self.pid, False)

    def end(self) -> None:
        """End it, whatever it is doing; a part that was carried is no harm."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Pack, carry, say so."""
    processes.die_with_parent(int(sys.argv[1]))
    processes.run_when_idle(os.getpid(), True)
    order = json.loads(sys.stdin.read())
    folder = Path(order["folder"])
    packed = folder.with_name(f".tmp-{folder.name}-{os.getpid()}.tar.gz")
    began = time.monotonic()
    try:
        cache = Cache(order["root"])
        if not order["anew"] and cache.find(order["key"]) is not None:
            return  # another attempt was first
        parts = []
        for names in archive.parts(folder, order["names"]):
            archive.pack(folder, names, packed, order["secrets"])
            parts.append(cache.put(order["key"], packed))
        kept = Manifest(tuple(parts), str(folder), order["seconds"])
        cache.publish(order["key"], kept)
        took_s = time.monotonic() - began
        _say(f"the environment is kept for the next attempt: {readable(kept.size_bytes)} in {took_s:.1f} s")
    except archive.HoldsSecret as error:
        _say(f"the environment is not kept for the next attempt: {error} in it holds a secret")
    except (RunctlError, CacheBroken, OSError) as error:
        _say(f"the environment is not kept for the next attempt: {error}")
    finally:
        packed.unlink(missing_ok=True)


def _say(text: str) -> None:
    sys.stderr.write(f"runctl: {text}\n")


if __name__ == "__main__":
    main()

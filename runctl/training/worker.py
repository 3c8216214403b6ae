"""The shim of every rank: `python -u …/worker.py script|module TARGET ARG…`.

Standard library only. It sees to it that the rank dies with its parent, connects its output to the agent, leaves
an uncaught exception where the agent finds it, and becomes the script: same `__main__`, same `sys.argv`, same
`sys.path` as under plain python, so that pickling, spawned data loaders and debuggers work.
"""

from __future__ import annotations

import sys

if sys.path and sys.path[0].endswith("training"):
    # Started by its path, python put our folder first; the script must find its own there.
    del sys.path[0]

import importlib.util
import os
import time
import traceback
import types
from typing import Any


def main() -> None:
    """Set the rank up and run its target."""
    kind, target, *words = sys.argv[1:]
    host_dir, rank, restart = _join_attempt()
    sys.argv = [target, *words]
    try:
        code, module = _load_module(target) if kind == "module" else _load_script(target)
        sys.modules["__main__"] = module
        exec(code, module.__dict__)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        if host_dir is None:
            raise
        _report(error, host_dir, rank, restart)
        sys.exit(1)


def _join_attempt() -> tuple[Any, int, int]:
    """Connect this process to the attempt it belongs to: its host directory (or None), rank and restart."""
    package_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100,PTH120
    if importlib.util.find_spec("runctl") is None:
        sys.path.append(package_dir)
    from runctl import processes
    from runctl.hostdir import HostDir

    processes.die_with_parent(int(os.environ["RUNCTL_PARENT_PID"]))
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    host_dir = HostDir.from_environment()
    if host_dir is None:
        return None, rank, restart
    for stream, fd in (("out", 1), ("err", 2)):
        # The agent reads at the other end already, so that opening does not wait.
        pipe = os.open(host_dir.pipe(local_rank, stream), os.O_WRONLY)
        os.dup2(pipe, fd)
        os.close(pipe)
    host_dir.register_worker(rank, restart, {"pid": os.getpid(), "local_rank": local_rank})
    disabled = os.environ.pop("RUNCTL_WORKER_PLUGINS", None)
    if disabled is not None:
        _tell_plugins(disabled, rank)
    return host_dir, rank, restart


def _tell_plugins(disabled: str, rank: int) -> None:
    import json
    from pathlib import Path

    from runctl.hooks import Hooks

    hooks = Hooks.load(Path.cwd(), json.loads(disabled))
    hooks.notify("runctl_worker_started", rank=rank, world_size=int(os.environ.get("WORLD_SIZE", "1")))


def _load_script(path: str) -> tuple[types.CodeType, types.ModuleType]:
    """As `python path`: the script's folder comes first on the path, `__spec__` is None."""
    sys.path.insert(0, os.path.dirname(path))  # noqa: PTH120
    with open(path, "rb") as file:  # noqa: PTH123
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None)
    return code, module


def _load_module(name: str) -> tuple[types.CodeType, types.ModuleType]:
    """As `python -m name`: the working directory comes first on the path, a package runs its `__main__`."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or spec.loader is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name}", name=name)
    code = spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __file__=spec.origin, __builtins__=__builtins__, __spec__=spec, __package__=spec.parent,
        __loader__=spec.loader, __cached__=spec.cached,
    )  # fmt: skip
    sys.argv[0] = spec.origin
    return code, module


def _report(error: BaseException, host_dir: Any, rank: int, restart: int) -> None:
    """Leave the exception to the agent, which shows one of them last and once; our own frames left out."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    host_dir.report_failure(rank, restart, {"message": message, "traceback": text, "at": time.time()})


if __name__ == "__main__":
    main()

"""The shim of every rank: `python -u …/worker.py script|module TARGET ARG…`.

Standard library only. It sees to it that the rank dies with its parent, connects its output to the agent, leaves
an uncaught exception where the agent finds it, and becomes the script: same `__main__`, same `sys.argv`, same
`sys.path` as under plain python, so that pickling, spawned data loaders and debuggers work.
"""

from __future__ import annotations

import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    # Started by its path, python put our folder first; the script must find its own there.
    del sys.path[0]

import contextlib
import gc
import importlib.machinery
import importlib.util
import io
import os
import time
import types
from typing import Any


def main() -> None:
    """Set the rank up and run its target."""
    kind, target, *words = sys.argv[1:]
    rank = _join_attempt()
    sys.meta_path.insert(0, _TorchFinder())
    sys.argv = [target, *words]
    try:
        code, module = _load_module(target) if kind == "module" else _load_script(target)
        sys.modules["__main__"] = module
        exec(code, module.__dict__)
    except SystemExit as leaving:
        if rank is not None and rank.is_here() and (status := _status(leaving.code)) != 0:
            said = f": {leaving.code}" if isinstance(leaving.code, str) else ""
            rank.report(f"exited with code {status}{said}")
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if rank is None or not rank.is_here():
            raise
        rank.report_exception(error)
        sys.exit(1)


class _TorchFinder:
    """Finds torch as ever, and has what its import made left alone by the garbage collector.

    These are 166,000 objects (torch 2.13) that live as long as the process. The collector would go through them in
    each of its full rounds, 0.08 s in the midst of the training, and the interpreter at its end, for another 0.4 s.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None  # the finders behind us look for it
        load = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            with contextlib.suppress(ValueError):
                sys.meta_path.remove(self)
            load(module)
            gc.freeze()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Rank:
    """This process as a rank of an attempt."""

    def __init__(self, host_dir: Any, rank: int, local_rank: int, restart: int) -> None:
        self._host_dir = host_dir
        self._rank = rank
        self._local_rank = local_rank
        self._restart = restart
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Whether this is the rank itself: a process that the script forked comes out of it as well."""
        return os.getpid() == self._pid

    def report(self, message: str, trace: str | None = None) -> None:
        """Say why this rank is about to fail."""
        failure = {"message": _printable(message), "traceback": trace and _printable(trace), "at": time.time()}
        self._host_dir.report_failure(self._rank, self._restart, failure)

    def report_exception(self, error: BaseException) -> None:
        """Leave an exception to the agent, which shows one of them last and once; our own frames left out."""
        import traceback  # late, as all that a rank may never need: every rank pays for our imports

        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        self.report("".join(traceback.format_exception_only(type(error), error)).strip(), text)
        if sys.excepthook is not sys.__excepthook__:
            # An experiment tracker marks its run as failed there. Others (torch.distributed, rich) only print the
            # traceback in their way, which the agent will show already.
            with contextlib.redirect_stderr(io.StringIO()):
                sys.excepthook(type(error), error.with_traceback(frames), frames)
        with contextlib.suppress(OSError):  # the agent has gone and taken its directory along
            self._host_dir.write_log(self._local_rank, text)


def _join_attempt() -> _Rank | None:
    """Connect this process to the attempt it belongs to; None outside of any."""
    package_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100,PTH120
    if importlib.util.find_spec("runctl") is None:
        sys.path.append(package_dir)
    from runctl import processes
    from runctl.hostdir import HostDir
    from runctl.training import place

    processes.die_with_parent(int(os.environ["RUNCTL_PARENT_PID"]))
    host_dir = HostDir.from_environment()
    if host_dir is None:
        return None
    if os.environ.get("TORCHELASTIC_RUN_ID") != os.environ["RUNCTL_RUN_ID"]:
        place.say_alone()  # RANK and its like stem from something around this launch
    rank, local_rank, world_size, restart = place.here()
    if restart:
        host_dir.write_log(local_rank, f"--- restart {restart} ---\n")
    for stream, fd in (("out", 1), ("err", 2)):
        # The agent reads at the other end already, so that opening does not wait.
        pipe = os.open(host_dir.pipe(local_rank, stream), os.O_WRONLY)
        os.dup2(pipe, fd)
        os.close(pipe)
    host_dir.register_worker(rank, restart, {"pid": os.getpid(), "local_rank": local_rank})
    disabled = os.environ.pop("RUNCTL_WORKER_PLUGINS", None)
    if disabled is not None:
        _tell_plugins(disabled, rank, world_size)
    return _Rank(host_dir, rank, local_rank, restart)


def _tell_plugins(disabled: str, rank: int, world_size: int) -> None:
    import json
    from pathlib import Path

    from runctl.hooks import Hooks

    hooks = Hooks.load(Path.cwd(), json.loads(disabled))
    hooks.notify("runctl_worker_started", rank=rank, world_size=world_size)


def _load_script(path: str) -> tuple[types.CodeType, types.ModuleType]:
    """As `python path`: the script's own folder, links resolved, comes first on the path; `__spec__` is None."""
    _put_first(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    with open(path, "rb") as file:  # noqa: PTH123
        code = compile(file.read(), path, "exec", dont_inherit=True)
    module = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    module.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None, __loader__=loader)
    return code, module


def _load_module(name: str) -> tuple[types.CodeType, types.ModuleType]:
    """As `python -m name`: the working directory comes first on the path, a package runs its `__main__`."""
    _put_first(os.getcwd())  # noqa: PTH109
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


def _put_first(folder: str) -> None:
    if not getattr(sys.flags, "safe_path", False):  # python -P; it came with Python 3.11
        sys.path.insert(0, folder)


def _status(code: Any) -> int:
    """The exit code that `sys.exit(code)` gives: anything but a number is printed and gives 1."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _printable(text: str) -> str:
    """Text that can be encoded: file names may hold lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    main()

"""Kills a process of a launch at an exact place of the product's code, once; the product knows nothing of it.

A launch that has this folder on PYTHONPATH and `ENV` in its environment loads the module named there with a call of
`hit` before each statement of the one function: also where python runs the module itself (`python -m`), for both ways
ask a loader for the code. At the n-th statement that a process of the named role executes in that function, the victim
gets SIGKILL. Roles are the processes of one launch; the variable is how they are told from those of others.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import CodeType, ModuleType
from typing import Any

ENV = "RUNCTL_TEST_FAULT"
LAUNCHER, AGENT, TORCHRUN, WRITER, UPLOADER = "launcher", "agent", "torchrun", "writer", "uploader"
RANKS = ("rank 0", "rank 1")
ROLES = (LAUNCHER, AGENT, TORCHRUN, *RANKS, WRITER, UPLOADER)
_PROGRAMS = {
    "runctl-launch": LAUNCHER,
    "runctl.agent": AGENT,
    "runctl.agent.torchrun": TORCHRUN,
    "runctl.training.writer": WRITER,
    "runctl.checkpoint.upload": UPLOADER,
}
_SHIM = "runctl/training/worker.py"
_HIT = "_runctl_test_hit"
#: The place where it happened is not left before the other processes have noticed.
_LINGER_S = 0.3


@dataclass(frozen=True)
class Fault:
    """Whom to kill, and where.

    Attributes:
        marker: a file that does not exist, made by the kill; there is no second one.
        victim: a role.
        function: `module:Class.method`; None for a launch that is only to be found again by its variable.
        role: whose execution of it counts.
        statement: how many statements, loops and repeated calls counted in full, it has executed by then.
    """

    marker: str
    victim: str = ""
    function: str | None = None
    role: str = ""
    statement: int = 1

    def to_environment(self) -> str:
        return json.dumps(asdict(self))


def install() -> None:
    """Instrument this process as its environment says."""
    text = os.environ.get(ENV)
    fault = Fault(**json.loads(text)) if text else None
    if fault is not None and fault.function is not None and fault.role == role_of(sys.orig_argv, os.environ):
        setattr(builtins, _HIT, _Trigger(fault).hit)
        sys.meta_path.insert(0, _Finder(*fault.function.split(":")))


def role_of(words: Sequence[str], environment: Any) -> str | None:
    """The role of a process by its command line, or None."""
    for word in words:
        if word.endswith(_SHIM):
            return f"rank {environment.get('RANK', '0')}"
        if (role := _PROGRAMS.get(os.path.basename(word))) is not None:  # noqa: PTH119
            return role
    return None


def processes(tag: str) -> list[tuple[str | None, int]]:
    """Role and id of every living process that has this value in its variable, the oldest first."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(ENV) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.create_time(), role_of(process.cmdline(), environment), process.pid))
    return [(role, pid) for _, role, pid in sorted(found, key=lambda one: (one[0], one[2]))]


def kill(fault: Fault, tag: str) -> bool:
    """Kill the victim, unless that has been done; False if there is no such process, or no longer."""
    pid = next((pid for role, pid in processes(tag) if role == fault.victim), None)
    if pid is None:
        return False
    with contextlib.suppress(FileExistsError, ProcessLookupError):
        os.close(os.open(fault.marker, os.O_CREAT | os.O_EXCL))
        os.kill(pid, signal.SIGKILL)
    return True


def statements(tree: ast.Module, function: str) -> list[tuple[list[ast.stmt], ast.stmt]]:
    """Every statement of a function, nested functions' too, with the list that it stands in.

    Raises:
        LookupError: if there is no such function.
    """
    scope: ast.AST = tree
    for name in function.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        scope = next((n for n in ast.iter_child_nodes(scope) if isinstance(n, kinds) and n.name == name), None)
        if scope is None:
            raise LookupError(function)
    lists = [getattr(node, field, None) for node in ast.walk(scope) for field in ("body", "orelse", "finalbody")]
    return [(found, statement) for found in lists if isinstance(found, list) for statement in found]


class _Trigger:
    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._count = 0

    def hit(self) -> None:
        self._count += 1
        if self._count < self._fault.statement or os.path.exists(self._fault.marker):  # noqa: PTH110
            return
        if kill(self._fault, os.environ[ENV]):
            time.sleep(_LINGER_S)


class _Finder:
    """Finds the one module, and has its code instrumented."""

    def __init__(self, module: str, function: str) -> None:
        self._module = module
        self._function = function

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name != self._module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self._function)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, function: str) -> None:
        super().__init__(name, path)
        self._function = function

    def path_stats(self, path: str) -> Any:
        raise OSError("compiled code is neither read nor kept")

    def source_to_code(self, data: Any, path: Any, **options: Any) -> CodeType:  # type: ignore[override]
        tree = ast.parse(data)
        for found, statement in statements(tree, self._function):
            call = ast.parse(f"{_HIT}()").body[0]
            for node in ast.walk(call):
                ast.copy_location(node, statement)
            found.insert(found.index(statement), call)
        return compile(tree, path, "exec", dont_inherit=True)

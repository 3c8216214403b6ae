"""The environment of the ranks, from the look at this host to the interpreter that they get."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runctl import hosts
from runctl.agent.carried import carried
from runctl.agent.environment import archive, fitness, interpreters, requirements
from runctl.agent.environment.cache import Cache, CacheBroken
from runctl.agent.environment.commands import BuildStopped, Commands, Scrubber
from runctl.agent.environment.conda import Conda
from runctl.agent.environment.interpreters import Interpreter
from runctl.agent.environment.keep import Keeping
from runctl.agent.environment.recipe import Recipe, recipe
from runctl.agent.environment.uv import Uv, lend, python_of, site_of
from runctl.agent.order import Order
from runctl.checkpoint.transfer import readable
from runctl.errors import EnvironmentFailed
from runctl.spec import LaunchSpec

_LOOK_S = 0.2
#: Stands in an environment's folder once it is whole: where it was made, and in how many seconds.
_WHOLE = "runctl.json"


@dataclass(frozen=True)
class Ready:
    """An environment that is there.

    Attributes:
        python: the interpreter of the ranks.
        variables: what they get besides, as after `activate`.
        source: `system`, `made`, `cache`, or `there` if an attempt on this host made it before.
        about: what else there is to tell of it.
    """

    python: str
    variables: dict[str, str] = field(default_factory=dict)
    source: str = "system"
    about: dict[str, Any] = field(default_factory=dict)


class RanksEnvironment:
    """Has the environment of one attempt's ranks ready, and kept for the next.

    Args:
        order: what the agent was told.
        spec: what runs.
        say: takes lines for the user.
    """

    def __init__(self, order: Order, spec: LaunchSpec, say: Callable[[str], None]) -> None:
        self._order = order
        self._wanted = spec.environment
        self._root = spec.run.root
        self._user_env = spec.env
        self._run_dir = order.run_dir
        self._project_dir = Path(order.project_dir)
        self._say = say
        self._stop = threading.Event()
        self._ready: Ready | None = None
        self._secrets: list[str] = []
        self._broken = False
        self._keeping: Keeping | None = None

    @property
    def keeper_pid(self) -> int | None:
        """The process that keeps it for the next attempt, or None."""
        return self._keeping.pid if self._keeping is not None else None

    def keep(self) -> None:
        """Begin to keep what was made, beside the training; only the main thread may ask."""
        if self._keeping is not None:
            self._keeping.start()

    def keeping(self) -> bool:
        """Whether that goes on."""
        return self._keeping is not None and self._keeping.at_work

    def hurry(self) -> None:
        """Nothing trains any more: it need not stand back."""
        if self._keeping is not None:
            self._keeping.hurry()

    def prepare(
        self, secrets: Mapping[str, str], meanwhile: Callable[[], None], stopped: Callable[[], bool]
    ) -> Ready | None:
        """Have it ready.

        Args:
            secrets: what the installers get of them, by variable.
            meanwhile: called again and again.
            stopped: whether it is not wanted any more.

        Returns:
            It, or None if it was stopped.

        Raises:
            EnvironmentFailed: if there is none, with what to do.
        """
        if self._order.python is not None:
            return Ready(self._order.python)
        if self._order.attached and not self._wanted.files:
            return Ready(sys.executable)  # on one's own machine it is there already
        self._secrets = Scrubber(secrets.values()).values

        def work() -> None:
            with contextlib.suppress(BuildStopped):
                self._ready = self._made(secrets)

        for error in carried(work, self._stop, meanwhile, stopped):
            raise error
        return self._ready

    def _made(self, secrets: Mapping[str, str]) -> Ready:
        wanted = self._wanted
        for name in wanted.files:
            if not (self._project_dir / name).is_file():
                raise EnvironmentFailed(
                    f"environment: {name} is not on the host; is it ignored by git, or by .runctlignore?"
                )
        image = interpreters.image_pythons(wanted.python, attached=self._order.attached)
        asked: requirements.Requirements | None = None
        if wanted.kind == "uv" and wanted.files and not wanted.files[0].endswith("uv.lock"):
            asked = requirements.read(self._project_dir / wanted.files[0])
        if (there := self._there(image, asked)) is not None:
            return there
        packages = asked.packages if asked is not None else ()
        how = recipe(wanted, image, interpreters.other_pythons, packages)
        return self._built(how, secrets)

    def _there(self, image: list[Interpreter], asked: requirements.Requirements | None) -> Ready | None:
        """An interpreter of the host that has all that is wanted, or None.

        Raises:
            EnvironmentFailed: if none has torch, it is needed, and nothing may be made.
        """
        wanted = self._wanted
        if wanted.kind in ("system", "docker"):
            fit = [one for one in image if one.fits(wanted.python)] or image
            best = next((one for one in fit if one.torch), None)
            if best is None and not wanted.needs_torch:
                best = next(iter(fit), None)
            if best is None and wanted.torch is None:
                seen = ", ".join(f"{one.path} ({one.version})" for one in image) or "there is no Python"
                if wanted.kind == "docker":
                    raise EnvironmentFailed(
                        f"docker.image={wanted.image}: none of its interpreters has torch: {seen}. Take an image that "
                        "has it in its python3 or /opt/conda, such as pytorch/pytorch"
                    )
                raise EnvironmentFailed(
                    f"python_env=system: no interpreter of this host has torch: {seen}. python_env=auto installs it; "
                    "or take another image (platform.ami), name an interpreter that has it (platform.python), or "
                    "install it in a setup line"
                )
            if best is not None and not best.fits(wanted.python):
                self._say(f"environment: {best.path} is Python {best.version}, and the project wants {wanted.python}")
            return None if best is None else self._as_it_is(best)
        if asked is None or asked.local:
            return None
        for one in image:
            if one.fits(wanted.python) and (one.torch or not wanted.needs_torch) and not one.lacks(asked.packages):
                self._say(f"environment: {one.path} has all of {wanted.files[0]}")
                return self._as_it_is(one)
        return None

    def _as_it_is(self, one: Interpreter) -> Ready:
        cuda = fitness.check(map(Path, one.search))
        about = {"python": one.version, "torch": one.torch, "cuda": cuda}
        return Ready(one.path, self._variables(Path(one.path).parent), "system", about)

    def _built(self, how: Recipe, secrets: Mapping[str, str]) -> Ready:
        """Made by an installer, or brought from where an earlier attempt left it."""
        folder = self._place / how.key
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        maker = self._maker(how, folder, secrets)
        with self._alone(folder):
            whole = _read(folder / _WHOLE)
            source = "there" if whole is not None and whole.get("folder") == str(folder) else self._fetched(how, folder)
            if source is None:
                source = "made"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                self._say(f"environment: making it from {self._wanted}")
                maker.make()
                self._see_to_torch(maker, how)
            took_s = time.monotonic() - began
            if source == "made":
                self._keeping = self._to_keep(how.key, folder, took_s)
            if source != "there":
                (folder / _WHOLE).write_text(json.dumps({"folder": str(folder), "seconds": took_s}))
            maker.install_own()
        took_s = time.monotonic() - began
        word = {"made": "made", "cache": "from the cache", "there": "as it was made here before"}[source]
        self._say(f"environment: {self._wanted}: {word} in {took_s:.1f} s")
        own = interpreters.torch_in(maker.prefix)
        lent = how.lender if own is None else None
        cuda = fitness.check([site_of(maker.prefix), *map(Path, lent.search if lent is not None else ())])
        about = {
            "key": how.key, "seconds": round(took_s, 3), "torch": own or (lent and lent.torch), "cuda": cuda,
        }  # fmt: skip
        return Ready(str(python_of(maker.prefix)), self._variables(maker.prefix / "bin"), source, about)

    def _maker(self, how: Recipe, folder: Path, secrets: Mapping[str, str]) -> Uv | Conda:
        commands, wanted = self._commands(secrets), self._wanted
        uv = Uv(wanted, self._project_dir, how, folder, commands=commands, tools=self._place)
        if wanted.kind != "conda":
            return uv
        return Conda(
            self._project_dir / wanted.files[0], uv, lender=how.lender, commands=commands, tools=self._place,
            scrubber=Scrubber(secrets.values()),
        )  # fmt: skip

    def _fetched(self, how: Recipe, folder: Path) -> str | None:
        """`cache` if it lies there now, None if it must be made."""
        if self._order.attached:
            return None
        try:
            cache = Cache(self._root)
            found = cache.find(how.key)
            if found is None:
                return None
            self._say(f"environment: bringing it from the cache: {readable(found.size_bytes)}")
            shutil.rmtree(folder, ignore_errors=True)
            cache.fetch(how.key, found, folder, self._stop)
        except CacheBroken as error:
            if self._stop.is_set():
                raise BuildStopped from error
            self._broken = True
            self._say(f"environment: the cached one cannot be used, it is made anew: {error}")
            return None
        return "cache"

    def _see_to_torch(self, maker: Uv | Conda, how: Recipe) -> None:
        """What has no torch of its own gets the image's, or one from PyPI if the ranks need it."""
        if interpreters.torch_in(maker.prefix) is not None:
            return
        if how.lender is not None and lend(maker.prefix, how.lender):
            self._say(f"environment: torch {how.lender.torch} is that of {how.lender.path}")
        elif self._wanted.needs_torch and self._wanted.torch is not None:
            self._say(f"environment: nothing asks for torch, and the image has none that fits: {self._wanted.torch}")
            maker.install((f"torch=={self._wanted.torch}",), self._place)
        elif self._wanted.needs_torch:
            raise EnvironmentFailed(f"environment: {self._wanted} has no torch, and nor has the host; name it there")

    def _to_keep(self, key: str, folder: Path, seconds: float) -> Keeping | None:
        if self._order.attached:
            return None
        return Keeping(
            self._root, key, folder, archive.files_of(folder), seconds=seconds, secrets=self._secrets,
            anew=self._broken,
        )  # fmt: skip

    def _variables(self, binaries: Path) -> dict[str, str]:
        """What `activate` would set, and a project without a lock on the path."""
        found = {"PATH": os.pathsep.join([str(binaries), os.environ.get("PATH", os.defpath)])}
        if (binaries.parent / "conda-meta").is_dir():
            found["CONDA_PREFIX"] = str(binaries.parent)
        elif (binaries.parent / "pyvenv.cfg").is_file():
            found["VIRTUAL_ENV"] = str(binaries.parent)
        if self._wanted.files and Path(self._wanted.files[0]).name == "pyproject.toml":
            project = self._project_dir / Path(self._wanted.files[0]).parent
            source = project / "src" if (project / "src").is_dir() else project
            found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
        return found

    def _commands(self, secrets: Mapping[str, str]) -> Commands:
        """The installers' environment: the user's variables, the secrets of the setup, and nothing of ours."""
        ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        # By its run they are found if we are killed.
        env = {**ours, **self._user_env, **secrets, "RUNCTL_RUN_DIR": self._run_dir}
        if not self._order.attached:
            env.setdefault("UV_CACHE_DIR", str(self._place / ".uv"))  # on the same disk
        return Commands(env, Scrubber(secrets.values()), self._stop)

    @property
    def _place(self) -> Path:
        """Where environments lie on this host: on a rented one always in the same place."""
        if self._order.attached:
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            return Path(cache, "runctl", "environments")
        return Path(os.environ.get("RUNCTL_HOST_ROOT", hosts.ROOT), "environments")

    @contextlib.contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Hold an environment alone among the attempts of this machine."""
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if self._stop.wait(_LOOK_S):
                        raise BuildStopped from error
            yield


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text())
        return told if isinstance(told, dict) else None
    except (OSError, ValueError):
        return None

"""Environments made by uv: from its lock, from requirements, or around torch alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from runctl.agent.environment import requirements
from runctl.agent.environment.commands import Commands
from runctl.agent.environment.interpreters import Interpreter, version_in
from runctl.agent.environment.recipe import Recipe
from runctl.environment import Environment
from runctl.errors import EnvironmentFailed

_UV = "uv>=0.8,<1"
#: Packages of the project itself, in a lock; one that is `virtual` is not installed.
_OWN = re.compile(r"^source = \{ (?:editable|directory) = ", re.M)
_FILE = "runctl-image.pth"


class Uv:
    """Makes one environment.

    Args:
        wanted: the project's.
        project_dir: where the project lies.
        recipe: what to make.
        folder: of the environment; it lies in `venv` below, or in `conda` if that makes it.
        commands: runs what must be run.
        tools: folder for what is not on the host.
    """

    def __init__(
        self, wanted: Environment, project_dir: Path, recipe: Recipe, folder: Path, *, commands: Commands, tools: Path
    ) -> None:
        self._wanted = wanted
        self._files = [project_dir / name for name in wanted.files]
        self._recipe = recipe
        self._folder = folder
        self.prefix = folder / ("conda" if wanted.kind == "conda" else "venv")
        self._commands = commands
        self._tools = tools

    def make(self) -> None:
        """Make it with all that comes from elsewhere.

        Raises:
            EnvironmentFailed: if that fails.
        """
        self._prepare()
        if self._files and self._files[0].name == "uv.lock":
            self._sync("--no-install-project", "--no-install-workspace", "--no-install-local")
        elif self._files:
            wanted = requirements.read(self._files[0])
            self.install(wanted.lines, wanted.folder, without=self._recipe.lent)
        else:
            self.install((f"torch=={self._wanted.torch}",), self._folder)

    def install_own(self) -> None:
        """Install the project's own packages into it, which are not kept with the rest: they change.

        Raises:
            EnvironmentFailed: if that fails.
        """
        if self._files[:1] and self._files[0].name == "uv.lock":
            if _OWN.search(self._files[0].read_text()):
                self._sync("--inexact")
        elif self._files:
            wanted = requirements.read(self._files[0])
            if wanted.local:
                self.install((*wanted.lines, *wanted.local), wanted.folder, without=self._recipe.lent)

    def install(self, lines: tuple[str, ...], folder: Path, without: tuple[str, ...] = ()) -> None:
        """Install packages, by lines as a file of requirements has them, but those that are there already.

        Raises:
            EnvironmentFailed: if that fails.
        """
        words = ["pip", "install", "--python", str(python_of(self.prefix)), "-r", "-"]
        if without:
            # An override that is never true takes a package out of whatever asks for it.
            aside = self._folder / "lent.txt"
            aside.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in without))
            words += ["--overrides", str(aside)]
        self._uv(*words, cwd=folder, given="\n".join(lines) + "\n")

    def _prepare(self) -> None:
        python = self._recipe.python
        named = (
            ["--python", python.home] if python is not None else ["--managed-python", "--python", self._recipe.request]
        )
        self._uv("venv", "--no-project", "--relocatable", *named, str(self.prefix))

    def _sync(self, *words: str) -> None:
        project = next((file.parent for file in self._files[1:]), self._files[0].parent)
        self._uv(
            "sync", "--frozen", *words, "--project", str(project), "--python", str(python_of(self.prefix)), cwd=project
        )

    def _uv(self, *words: str, cwd: Path | None = None, given: str = "") -> None:
        env = {
            "UV_PROJECT_ENVIRONMENT": str(self.prefix),
            "UV_PYTHON_INSTALL_DIR": str(self._folder / "python"),  # it belongs to what is kept
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
        }
        self._commands.run([self._found(), *words], cwd=cwd, env=env, given=given)

    def _found(self) -> str:
        """uv: the host's, or one that pip brings into a folder of its own."""
        search = os.pathsep.join(filter(None, [os.environ.get("PATH"), str(Path(sys.executable).parent)]))
        if found := shutil.which("uv", path=search):
            return found
        return str(tool(self._tools, "uv", _UV, self._commands) / "bin" / "uv")


def tool(folder: Path, name: str, wanted: str, commands: Commands) -> Path:
    """A package from PyPI in a folder of its own, by pip, with whatever pip was told on this host.

    Raises:
        EnvironmentFailed: if it cannot be had.
    """
    there = folder / name
    if not there.is_dir():
        aside = folder / f".tmp-{name}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        words = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
        try:
            commands.run([*words, "--target", str(aside), wanted])
        except EnvironmentFailed as error:
            raise EnvironmentFailed(
                f"{error}\n{name} is needed; install it in a setup line, or let pip reach it"
            ) from error
        aside.replace(there)
    return there


def lend(prefix: Path, lender: Interpreter) -> bool:
    """Have an environment find the packages of another interpreter behind its own, if both are the same Python."""
    if version_in(prefix) != lender.minor:
        return False
    # As site does it for its own folders: with what the .pth files in there say.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in lender.search]
    (site_of(prefix) / _FILE).write_text("\n".join(lines) + "\n")
    return True


def site_of(prefix: Path) -> Path:
    """The folder of an environment's packages."""
    return prefix / "lib" / f"python{version_in(prefix)}" / "site-packages"


def python_of(prefix: Path) -> Path:
    return prefix / "bin" / "python"

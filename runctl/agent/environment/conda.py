"""Environments made from an environment.yml: by the host's conda, or by rattler in its stead."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from runctl.agent.environment.commands import Commands, Scrubber
from runctl.agent.environment.interpreters import Interpreter, version_in
from runctl.agent.environment.recipe import lendable
from runctl.agent.environment.uv import Uv, tool
from runctl.errors import EnvironmentFailed

_RATTLER = "py-rattler>=0.28,<1"
_SOLVER = Path(__file__).with_name("solver.py")
#: What conda means by its own name for them.
_NAMED = {"defaults": "https://repo.anaconda.com/pkgs/main"}
_CONDAS = {
    "micromamba": ("create", "--yes", "--prefix", "{prefix}", "--file", "{file}"),
    "mamba": ("env", "create", "--yes", "--prefix", "{prefix}", "--file", "{file}"),
    "conda": ("env", "create", "--prefix", "{prefix}", "--file", "{file}"),
}


class Conda:
    """Makes one environment.

    Args:
        file: the environment.yml.
        uv: installs its `pip:` part.
        lender: whose torch will be used where it gets none.
        commands: runs what must be run.
        tools: folder for what is not on the host.
        scrubber: takes the secrets out of what conda writes down.
    """

    def __init__(
        self, file: Path, uv: Uv, *, lender: Interpreter | None, commands: Commands, tools: Path, scrubber: Scrubber
    ) -> None:
        self._file = file
        self._uv = uv
        self._lender = lender
        self._commands = commands
        self._tools = tools
        self._scrubber = scrubber
        self.prefix = uv.prefix

    def make(self) -> None:
        """Make it.

        Raises:
            EnvironmentFailed: if that fails.
        """
        found = next((name for name in _CONDAS if shutil.which(name)), None)
        if found is not None:
            words = [word.format(prefix=self.prefix, file=self._file) for word in _CONDAS[found]]
            self._commands.run([found, *words], cwd=self._file.parent)
        else:
            self._with_rattler()
        for record in (self.prefix / "conda-meta").glob("*"):
            # A channel behind a token has it in its URL, and each package tells where it came from.
            text = record.read_text(errors="replace") if record.is_file() else ""
            if (clean := self._scrubber.clean(text)) != text:
                record.write_text(clean)

    def install_own(self) -> None:
        """Nothing of the project itself stands in an environment.yml, but what is written there as a path."""

    def install(self, lines: tuple[str, ...], folder: Path) -> None:
        """Install packages from PyPI as well.

        Raises:
            EnvironmentFailed: if that fails.
        """
        self._uv.install(lines, folder)

    def _with_rattler(self) -> None:
        channels, packages, pip = _read(self._file)
        tools = ""
        if importlib.util.find_spec("rattler") is None:
            tools = str(tool(self._tools, "py-rattler", _RATTLER, self._commands))
        order = {
            "tools": tools,
            "channels": [_NAMED.get(name, self._expanded(name)) for name in channels],
            "packages": packages,
            "prefix": str(self.prefix),
            "cache": str(self._tools / ".rattler"),
        }
        self._commands.run([sys.executable, "-I", str(_SOLVER)], cwd=self._file.parent, given=json.dumps(order))
        if pip:
            lender = self._lender if self._lender and version_in(self.prefix) == self._lender.minor else None
            without = lendable(lender, pip) if lender is not None else ()
            self._uv.install(tuple(pip), self._file.parent, without=without)

    def _expanded(self, channel: str) -> str:
        """A channel with the variables in it, as conda reads them."""
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self._commands.env.get(found[1], found[0]), channel)


def _read(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Channels, conda's packages and pip's of an environment.yml.

    Raises:
        EnvironmentFailed: for one that is none.
    """
    import yaml

    try:
        told: Any = yaml.safe_load(file.read_text())
        listed = told.get("dependencies") or []
    except (yaml.YAMLError, AttributeError) as error:
        raise EnvironmentFailed(f"environment: {file.name} is no environment of conda's: {error}") from error
    packages = [one for one in listed if isinstance(one, str)]
    pip = [line for one in listed if isinstance(one, dict) for line in one.get("pip") or []]
    channels = [one for one in told.get("channels") or ["conda-forge"] if one != "nodefaults"]
    return channels, [one for one in packages if one != "pip" or not pip], pip

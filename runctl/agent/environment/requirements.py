"""Files of requirements, read apart: what comes from elsewhere, and what is the project's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_INCLUDE = re.compile(r"^(?:-r|--requirement)[ =]?\s*(\S+)")
_CONSTRAINT = re.compile(r"^(?:-c|--constraint)[ =]?\s*(\S+)")
_LOCAL = re.compile(
    r"^(?:(?:-e|--editable)[ =]?\s*(?!git\+)\S|\.{1,2}(?:[/\[]|$)|/|file:|[\w.-]+\s*(?:\[[^\]]*\])?\s*@\s*(?:file:|\.))"
)
_STRING = re.compile(r"""["']((?:[^"'\\]|\\.)*)["']""")


@dataclass(frozen=True)
class Requirements:
    """What a project asks for.

    Attributes:
        lines: for the installer: packages from elsewhere, and where to look for them.
        local: parts of the project itself, to be installed when it is there.
        folder: relative paths begin there.
    """

    lines: tuple[str, ...]
    local: tuple[str, ...]
    folder: Path

    @property
    def packages(self) -> list[str]:
        """The lines that name a package, without hashes."""
        bare = (re.split(r"\s--|\s#", line)[0].strip() for line in self.lines)
        return [line for line in bare if line and not line.startswith("-")]


def read(path: Path) -> Requirements:
    """Read a file of requirements with those that it includes, or the dependencies of a pyproject.toml."""
    folder = path.parent
    if path.name == "pyproject.toml":
        return Requirements(tuple(_dependencies(path.read_text())), (), folder)
    lines, local = _flat(path, frozenset())
    return Requirements(tuple(lines), tuple(local), folder)


def _flat(path: Path, seen: frozenset[Path]) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    local: list[str] = []
    if path in seen:
        return lines, local
    text = re.sub(r"\\\n", " ", path.read_text())
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        included, constraint = _INCLUDE.match(line), _CONSTRAINT.match(line)
        if included and "://" not in included[1]:
            more, more_local = _flat(path.parent / included[1], seen | {path})
            lines, local = lines + more, local + more_local
        elif constraint and "://" not in constraint[1]:
            lines.append(f"-c {path.parent / constraint[1]}")
        elif _LOCAL.match(line):
            local.append(line)
        else:
            lines.append(line)
    return lines, local


def _dependencies(text: str) -> list[str]:
    """`project.dependencies` of a pyproject.toml; no TOML reader comes with Python 3.10."""
    table = re.search(r"^\[project\]\s*$(.*?)(?=^\[|\Z)", text, re.M | re.S)
    begin = re.search(r"^dependencies\s*=\s*\[", table[1], re.M) if table else None
    if table is None or begin is None:
        return []
    found: list[str] = []
    rest = table[1][begin.end() :]
    while True:
        rest = re.sub(r"\A(?:\s|,|#[^\n]*)*", "", rest)
        one = _STRING.match(rest)
        if one is None:
            return found
        found.append(re.sub(r"\\(.)", r"\1", one[1]))
        rest = rest[one.end() :]

"""The command line before Hydra sees it: the parts that Hydra's grammar has no place for (standard library)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runctl.errors import ConfigError

#: Words after which nothing is launched: Hydra answers them, or the plan alone is printed.
_NO_LAUNCH_FLAGS = {"-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc",
                    "--shell-completion", "-m", "--multirun"}  # fmt: skip
_NO_LAUNCH_KEYS = re.compile(r"\+*(dry_run|explain|plugins\.list)=(?!false\b)")


@dataclass(frozen=True)
class CommandLine:
    """What was typed.

    Attributes:
        words: flags and overrides for Hydra.
        tail: what stands behind `--`, or None if there is no `--`.
        disabled: plugins named by `-p no:NAME`.
    """

    words: tuple[str, ...]
    tail: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()

    @property
    def wants_version(self) -> bool:
        return "--version" in self.words

    @property
    def wants_help(self) -> bool:
        return bool({"-h", "--help"} & set(self.words))

    def value_of(self, key: str) -> str | None:
        """The text typed for a key, the last one if there are several."""
        found = [word.split("=", 1)[1] for word in self.words if re.match(rf"\+*{re.escape(key)}=", word)]
        return found[-1] if found else None

    def launches_here(self) -> bool:
        """Whether this will, as far as its words tell, launch one run on this machine."""
        return (
            not _NO_LAUNCH_FLAGS & set(self.words)
            and not any(_NO_LAUNCH_KEYS.match(word) for word in self.words)
            and self.value_of("platform") in (None, "local")
        )

    def needs_torchrun(self, project_files: list[Path]) -> bool:
        """Whether this will, as far as its words and the files' text tell, start torchrun.

        A guess that only decides whether torch is imported ahead of time; a wrong one costs a process that
        ends unused, or the head start.
        """
        typed = self.value_of("trainer")
        if typed is not None:
            return typed == "ddp"
        for file in project_files:
            if re.search(r"^[\s-]*(override\s+)?/?trainer\s*:\s*ddp\b", file.read_text(), re.M):
                return True
        return False


def parse(argv: list[str]) -> CommandLine:
    """Take the command line apart.

    `+platform=aws` and `platform=aws` mean the same. The group stands in our defaults list, so that a project's
    own file can both choose a platform and set its options; there Hydra wants it without the plus.

    Raises:
        ConfigError: for a `-p` that does not say `no:NAME`.
    """
    tail: tuple[str, ...] | None = None
    if "--" in argv:
        cut = argv.index("--")
        argv, tail = argv[:cut], tuple(argv[cut + 1 :])
    words: list[str] = []
    disabled: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "-p":
            plugin = next(rest, "")
            if not plugin.startswith("no:") or plugin == "no:":
                raise ConfigError(f"-p {plugin}: write -p no:NAME to leave the plugin NAME out")
            disabled.append(plugin.removeprefix("no:"))
        else:
            words.append(re.sub(r"^\++(?=platform=)", "", word))
    return CommandLine(tuple(words), tail, tuple(disabled))

"""The command line before Hydra sees it: the parts that Hydra's grammar has no place for (standard library)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from runctl.errors import ConfigError

#: Words after which nothing is launched: Hydra answers them, or the plan alone is printed.
_NO_LAUNCH_FLAGS = {"-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc",
                    "--shell-completion", "-m", "--multirun"}  # fmt: skip
#: Hydra's flags that work here, and of those the ones that take a value.
_FLAGS = {*_NO_LAUNCH_FLAGS, "--resolve", "-r", "--run"}
_FLAGS_WITH_VALUE = {"-c", "--cfg", "--package", "-cd", "--config-dir", "-i", "--info"}
_MODES = {"-c", "--cfg", "-i", "--info", "-m", "--multirun", "-r", "--run", "-sc", "--shell-completion"}
_INFO_TOPICS = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
#: Groups of our own defaults list.
GROUPS = ("platform", "trainer", "drill")
#: Where Hydra wants no plus, and people write one: those groups, and maps that take any key.
_NEEDLESS_PLUS = re.compile(
    r"^\++(?=(platform|trainer|drill)=|(args|env|secrets|secrets_scope|tags|multipliers|trainer\.env|platform\.(multipliers|args))\.)"
)
#: Where Hydra wants two, to take keys that stand nowhere yet.
_NEEDED_PLUSES = re.compile(r"^\+*(?=hydra\.sweeper\.params=\{)")
#: Words for the script, which Hydra's grammar refuses for their `=`. With quotes or brackets of their own they are
#: Hydra's to read.
_RESUME_WORDS = re.compile(r"(\+*checkpoint\.resume_argv=)\[([^\]\[{}'\"\\]+)\]")
_RESUME_FLAG = re.compile(r"(\+*checkpoint\.resume_flag=)([^\]\[{}()'\"\\,\s]*=)")
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
    def overrides(self) -> tuple[str, ...]:
        """The words that Hydra's grammar is for."""
        return tuple(word for word in self.words if "=" in word and not word.startswith("-"))

    @property
    def is_multirun(self) -> bool:
        return bool({"-m", "--multirun"} & set(self.words))

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
            and self.value_of("drill") in (None, "none")
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
            if re.search(r"^[\s-]*(override\s+)?/?trainer\s*:\s*ddp\b", file.read_text(errors="replace"), re.M):
                return True
        return False


def parse(argv: list[str]) -> CommandLine:
    """Take the command line apart.

    `+platform=aws` and `platform=aws` mean the same. The group stands in our defaults list, so that a project's
    own file can both choose a platform and set its options; there Hydra wants it without the plus.

    Raises:
        ConfigError: for a flag that does not exist, or a `-p` that does not say `no:NAME`.
    """
    tail: tuple[str, ...] | None = None
    if "--" in argv:
        cut = argv.index("--")
        argv, tail = argv[:cut], tuple(argv[cut + 1 :])
    flags: list[str] = []
    overrides: list[str] = []
    disabled: list[str] = []
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "-p":
            disabled.append(_disabled_plugin(rest.popleft() if rest else ""))
        elif word.startswith("-"):
            flags += [word, *_value_of_flag(word, rest)]
        else:
            overrides.append(_with_quotes(_NEEDED_PLUSES.sub("++", _NEEDLESS_PLUS.sub("", word))))
    # Flags first: argparse, which reads them for Hydra, gives up on `script=train.py -m args.lr=0.1,0.2`.
    return CommandLine((*_sound(flags), *overrides), tail, tuple(disabled))


def _with_quotes(override: str) -> str:
    """`checkpoint.resume_argv=[--init=resume]` and `checkpoint.resume_flag=--resume=` as Hydra can read them."""
    if match := _RESUME_WORDS.fullmatch(override):
        words = ",".join(f"'{word.strip()}'" for word in match[2].split(","))
        return f"{match[1]}[{words}]"
    if match := _RESUME_FLAG.fullmatch(override):
        return f"{match[1]}'{match[2]}'"
    return override


def _sound(flags: list[str]) -> list[str]:
    """Flags that go together; with `--help` nothing else matters."""
    if {"-h", "--help"} & set(flags):
        return ["--help"]
    modes = [flag for flag in flags if flag.partition("=")[0] in _MODES]
    if len(modes) > 1:
        raise ConfigError(f"{' and '.join(modes)} do not go together; keep one of them")
    if "--resolve" in flags and not any(flag.startswith(("-c", "--cfg")) for flag in flags):
        raise ConfigError("--resolve goes with --cfg job, which prints the composed configuration")
    return flags


def _disabled_plugin(word: str) -> str:
    if not word.startswith("no:") or word == "no:":
        raise ConfigError(f"-p {word}: write -p no:NAME to leave the plugin NAME out")
    return word.removeprefix("no:")


def _value_of_flag(word: str, rest: deque[str]) -> list[str]:
    """The word that belongs to a flag, taken off `rest`, if one does."""
    flag, equals, _ = word.partition("=")
    if flag not in _FLAGS | _FLAGS_WITH_VALUE:
        raise ConfigError(f"{word}: runctl-launch has no such option (see --help); what is meant for the script goes "
                          f"behind --, as in `runctl-launch -- train.py {word}`")  # fmt: skip
    if equals or flag not in _FLAGS_WITH_VALUE or not rest:
        return []
    if flag in ("-i", "--info") and rest[0] not in _INFO_TOPICS:
        return []
    return [rest.popleft()]

"""From the composed configuration to the LaunchSpec."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from runctl import scaling
from runctl.arguments import ArgumentStyle, flatten
from runctl.config import checkpoints, environments, hosts
from runctl.config.argv import GROUPS, CommandLine
from runctl.config.schemas import LaunchConfig
from runctl.config.sources import Source
from runctl.errors import ConfigError
from runctl.spec import LaunchSpec, Logs, Program, RunIdentity, Trainer

_SAFE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEPT = re.compile(r"env:\w+|ssm:/[\w./-]+|secretsmanager:[\w/+=.@:-]+|runpod:[\w-]+", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NPROC_WORDS = ("auto", "gpu", "cpu")


@dataclass(frozen=True)
class Typed:
    """What was typed and swept, as Hydra hands it to one job.

    Attributes:
        command_line: the words before Hydra saw them.
        overrides: the job's overrides, swept ones with the value of this job.
    """

    command_line: CommandLine
    overrides: tuple[str, ...]

    def source_of(self, path: str) -> str | None:
        """`command line` or `sweep` if the dotted key, or a map that holds it, was typed; else None."""
        for override in self.overrides:
            key = override.split("=", 1)[0].lstrip("+~")
            # `platform=aws` chooses a file; what that file says was not typed.
            if path == key or (path.startswith(f"{key}.") and key not in GROUPS and path in _paths(override)):
                return "command line" if key in self._typed_as_one else "sweep"
        return None

    def swept(self) -> tuple[str, ...]:
        """The overrides whose values a sweeper chose, without Hydra's own."""
        keys = {override: override.split("=", 1)[0].lstrip("+~") for override in self.overrides}
        return tuple(
            override for override, key in keys.items()
            if key not in self._typed_as_one and not key.startswith("hydra.")
        )  # fmt: skip

    @functools.cached_property
    def _typed_as_one(self) -> set[str]:
        """Keys that were typed with one value. A sweeper may bring in keys of its own."""
        parsed = OverridesParser.create().parse_overrides(list(self.command_line.overrides))
        return {str(override.key_or_group) for override in parsed if not override.is_sweep_override()}


def _paths(override: str) -> set[str]:
    """The dotted keys that one override sets, also as a map: `args={lr: 1}` sets `args.lr`."""
    [parsed] = OverridesParser.create().parse_overrides([override])
    return set(flatten({str(parsed.key_or_group): parsed.value()}))


def to_spec(cfg: LaunchConfig, typed: Typed, sources: Sequence[Source], workdir: Path) -> LaunchSpec:
    """Check the composed configuration and freeze it.

    Args:
        cfg: the composed configuration, as objects of the schema.
        typed: what was typed.
        sources: the files that extend our configuration, the strongest first.
        workdir: where the user stands.

    Raises:
        ConfigError: for the first thing that cannot be, naming key and value.
    """
    project_dir = project_root(workdir)
    program, args_wanted = _program(cfg, typed.command_line, workdir, project_dir)
    args = _arguments(cfg, typed, sources, args_wanted)
    name = cfg.run.name or (Path(program.script).stem if program.script else str(program.module).rpartition(".")[2])
    if cfg.run.id is not None and typed.command_line.is_multirun and typed.source_of("run.id") != "sweep":
        raise ConfigError(f"run.id={cfg.run.id}: -m makes several runs and an id belongs to one; use run.name instead")
    root = checkpoints.absolute("run.root", "runs" if cfg.run.root is None else cfg.run.root, workdir)
    if typed.source_of("docker.image") and cfg.python_env.value != "docker":
        raise ConfigError(
            f"docker.image={cfg.docker.image} and python_env={cfg.python_env.value}: add python_env=docker, under "
            "which the image is used"
        )
    notify = _notify(cfg)
    asked = bool(typed.source_of("python_env")) or any(source.gives("python_env") for source in sources)
    return LaunchSpec(
        run=RunIdentity(run_id(cfg.run.id, name), name, root),
        program=program,
        environment=environments.environment(cfg, program, workdir, project_dir, asked=asked),
        args=args,
        args_style=ArgumentStyle(
            cfg.args_style.value, cfg.args_keys.value, cfg.args_booleans.value, cfg.args_lists.value
        ),
        trainer=_trainer(cfg),
        env=_strings("env", cfg.env),
        secrets={**_secrets(cfg.secrets), **notify},
        secrets_scope=_scopes(cfg),
        notify=tuple(notify),
        tags=_strings("tags", cfg.tags),
        resources=hosts.resources(cfg),
        limits=hosts.limits(cfg),
        retry_on=tuple(one.value for one in cfg.retry_on),
        data=hosts.data(cfg),
        bundle_max_bytes=hosts.size_bytes("bundle.max_size", cfg.bundle.max_size),
        checkpoint=checkpoints.policy(cfg, root, workdir),
        logs=Logs(cfg.logs.show.value, cfg.logs.prefix.value),
        plugins_disabled=(*cfg.plugins.disable, *typed.command_line.disabled),
    )


def project_root(workdir: Path) -> Path:
    """The top of the git checkout around `workdir`, or `workdir` itself outside of one."""
    for folder in (workdir, *workdir.parents):
        if (folder / ".git").exists():
            return folder
    return workdir


def _program(cfg: LaunchConfig, line: CommandLine, workdir: Path, project_dir: Path) -> tuple[Program, bool]:
    """The program, and whether arguments from files belong to it."""
    script, module, tail, from_files = cfg.script, cfg.module, line.tail or (), True
    typed_target = line.value_of("script") is not None or line.value_of("module") is not None
    if tail and not typed_target and (tail[0] == "-m" or not tail[0].startswith("-")):
        # As torchrun's users type it: `-- train.py --lr 1e-3` or `-- -m pkg.train --lr 1e-3`.
        from_files = False
        if tail[0] == "-m":
            if len(tail) < 2:
                raise ConfigError("-- -m: name the module, as in `-- -m package.train --lr 1e-3`")
            script, module, tail = None, tail[1], tail[2:]
        else:
            script, module, tail = tail[0], None, tail[1:]
    if script is not None and module is not None:
        raise ConfigError(f"script={script} and module={module} are both given; give one of them")
    if script is None and module is None:
        raise ConfigError("no script: name it with script=train.py (or module=package.train), or behind --, "
                          "as in `runctl-launch -- train.py --lr 0.1`")  # fmt: skip
    where = os.path.relpath(workdir, project_dir)
    argv = tuple("" if word is None else str(word) for word in cfg.argv)
    digest = None
    if script is not None:
        path = Path(workdir, script)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            near = sorted(p.name for p in workdir.glob("*.py"))[:5]
            hint = f"; here are {', '.join(near)}" if near else ""
            raise ConfigError(f"script={script}: {path} {what}{hint}")
        inside = path.resolve().is_relative_to(project_dir.resolve())
        script = os.path.relpath(path, workdir) if inside else str(path.absolute())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Program(script, module, argv, tail, where, digest), from_files


def _arguments(
    cfg: LaunchConfig, typed: Typed, sources: Sequence[Source], from_files: bool
) -> dict[str, scaling.Argument]:
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in flatten(cfg.args).items():
        source = typed.source_of(f"args.{name}")
        if source is None and not from_files:
            continue
        values[name] = value
        origin[name] = source or next((s.label for s in sources if s.gives(f"args.{name}")), "configuration")
    for name, value in flatten(cfg.platform.args).items():
        typed_here = origin.get(name) in scaling.TYPED_SOURCES
        if (from_files and not typed_here) or typed.source_of(f"platform.args.{name}"):
            values[name] = value
            origin[name] = typed.source_of(f"platform.args.{name}") or scaling.OUTRIGHT
    return scaling.scale(
        values,
        origin,
        {**flatten(cfg.platform.multipliers), **flatten(cfg.multipliers)},
        rule=cfg.scaling.rule.value,
        respect_overrides=cfg.scaling.respect_overrides,
        strict=cfg.scaling.strict,
    )


def _trainer(cfg: LaunchConfig) -> Trainer:
    trainer = cfg.trainer
    nproc = trainer.nproc_per_node
    if isinstance(nproc, bool) or not (nproc in _NPROC_WORDS or (isinstance(nproc, int) and nproc >= 1)):
        raise ConfigError(f"trainer.nproc_per_node={nproc}: at least 1, or one of {', '.join(_NPROC_WORDS)}")
    if trainer.kind.value == "single" and nproc not in ("auto", 1):
        raise ConfigError(f"trainer.nproc_per_node={nproc}: trainer=single is one process; use trainer=ddp")
    if trainer.nnodes != 1:
        raise ConfigError(f"trainer.nnodes={trainer.nnodes}: this version runs on 1 host")
    if trainer.max_restarts < 0:
        raise ConfigError(f"trainer.max_restarts={trainer.max_restarts}: 0 or more")
    if trainer.kind.value == "single" and trainer.max_restarts:
        raise ConfigError(f"trainer.max_restarts={trainer.max_restarts}: restarts are torchrun's; use trainer=ddp")
    if trainer.omp_threads is not None and trainer.omp_threads < 1:
        raise ConfigError(f"trainer.omp_threads={trainer.omp_threads}: at least 1")
    return Trainer(
        trainer.kind.value,
        nproc,
        trainer.nnodes,
        trainer.max_restarts,
        trainer.omp_threads,
        _strings("trainer.env", trainer.env),
    )


def run_id(given: str | None, name: str) -> str:
    """The id that was given, or one made from name, time and random letters.

    Safe as a path, a tag and an S3 key: lower-case letters, digits and dashes, at most 63.
    """
    if given is not None:
        if not _SAFE_ID.fullmatch(given):
            raise ConfigError(
                f"run.id={given}: lower-case letters, digits and dashes, at most 63 of them, and no dash in front"
            )
        return given
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-") or "run"
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(4))
    return f"{word}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{letters}"


def _strings(key: str, values: Mapping[str, Any]) -> dict[str, str]:
    for name, value in values.items():
        if isinstance(value, (Mapping, list)):
            raise ConfigError(f"{key}.{name}={value}: one value, not a {type(value).__name__}")
    return {name: _as_written(value) for name, value in values.items() if value is not None}


def _as_written(value: Any) -> str:
    """`true` in YAML and on the command line is the word true to whoever reads the environment, not Python's True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secrets(values: Mapping[str, Any]) -> dict[str, str]:
    for name, reference in values.items():
        if not isinstance(reference, str) or not _KEPT.fullmatch(reference):
            # The value itself is kept out of the message: it may be the secret.
            raise ConfigError(
                f"secrets.{name}: write where the secret is kept, as in secrets.{name}=env:{name}; "
                "ssm:/path, secretsmanager:id and runpod:name are the others"
            )
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"secrets.{name}: the name is a variable's: letters, digits and _, no digit in front")
    return dict(values)


def _notify(cfg: LaunchConfig) -> dict[str, str]:
    """Where the addresses of notifications are kept, by the names of their secrets."""
    found = {}
    for word in cfg.notify:
        if word in cfg.secrets:
            found[word] = cfg.secrets[word]
        elif _KEPT.fullmatch(word):
            found[re.sub(r"\W+", "_", f"NOTIFY_{word.partition(':')[2]}", flags=re.ASCII)] = word
        else:
            # An address is a secret: it may have been written here by mistake, and is not repeated.
            shown = f"there is no secrets.{word}" if _VARIABLE.fullmatch(word) else "this is neither"
            raise ConfigError(
                f"notify: {shown}; name a secret, or where one is kept, whose value is an apprise URL, as in "
                "notify=[env:SLACK_URL], and keep the URL itself in that variable"
            )
    return _secrets(found)


def _scopes(cfg: LaunchConfig) -> dict[str, str]:
    for name in cfg.secrets_scope:
        if name not in cfg.secrets:
            raise ConfigError(f"secrets_scope.{name}: there is no secrets.{name}")
    return {name: scope.value for name, scope in cfg.secrets_scope.items()}

"""`checkpoint.*`, checked and frozen."""

from __future__ import annotations

import difflib
from pathlib import Path, PurePath

from runctl.config.schemas import LaunchConfig
from runctl.durations import parse_duration_s, parse_every
from runctl.errors import ConfigError
from runctl.spec import CheckpointPolicy, Retention

_RESUME_WORDS = ("auto", "never", "require")


def policy(cfg: LaunchConfig, root: str, workdir: Path) -> CheckpointPolicy:
    """When checkpoints are taken, which stay, what an attempt begins from.

    Args:
        cfg: the composed configuration.
        root: where runs lie.
        workdir: where the user stands.

    Raises:
        ConfigError: for the first value that cannot be.
    """
    checkpoint, platform = cfg.checkpoint, cfg.platform
    resume, origin = str(checkpoint.resume), None
    if resume not in _RESUME_WORDS and not resume.isdigit():
        resume, origin = "auto", _origin(resume, root, workdir)
    for key in ("keep_last", "keep_every"):
        value = getattr(checkpoint, key)
        if value is not None and value < 1:
            raise ConfigError(f"checkpoint.{key}={value}: at least 1")
    watch = checkpoint.watch
    if watch is not None and (not watch.strip() or PurePath(watch).is_absolute() or ".." in PurePath(watch).parts):
        raise ConfigError(
            f"checkpoint.watch={watch}: a glob relative to the script's working directory and inside it, "
            "such as out/*.pt or ckpt/checkpoint-*"
        )
    for key in ("resume_flag", "resume_argv"):
        if watch is None and getattr(checkpoint, key):
            raise ConfigError(
                f"checkpoint.{key}={getattr(checkpoint, key)}: it is for checkpoints that the script writes by itself; "
                "name them with checkpoint.watch=GLOB"
            )
    return CheckpointPolicy(
        every=parse_every(checkpoint.every, "checkpoint.every"),
        resume=resume,
        origin=origin,
        url=absolute("checkpoint.url", checkpoint.url, workdir) if checkpoint.url is not None else None,
        grace_s=parse_duration_s(checkpoint.grace, "checkpoint.grace"),
        mean_time_to_interruption_s=parse_duration_s(
            platform.mean_time_to_interruption, "platform.mean_time_to_interruption"
        ),
        retention=Retention(checkpoint.keep_last, checkpoint.keep_every, checkpoint.keep_best),
        watch=watch,
        resume_flag=checkpoint.resume_flag,
        resume_argv=tuple("" if word is None else str(word) for word in checkpoint.resume_argv),
    )


def _origin(resume: str, root: str, workdir: Path) -> str:
    """Where the checkpoints that `checkpoint.resume` names lie; what lies on this machine is looked for at once."""
    is_id = "/" not in resume
    place = f"{root.rstrip('/')}/{resume}" if is_id else absolute("checkpoint.resume", resume, workdir)
    if "://" in place or Path(place).is_dir():
        return place
    if not is_id:
        raise ConfigError(f"checkpoint.resume={resume}: there is no folder {place}")
    runs = [path.parent.name for path in Path(root).glob("*/spec.json")]
    near = difflib.get_close_matches(resume, runs, 3, 0.5)
    raise ConfigError(
        f"checkpoint.resume={resume}: auto, never, require, the number of a step, or where to begin from: "
        f"a run's id, a path or a URL. There is no run {resume} in {root}"
        + (f"; there are {', '.join(near)}" if near else "")
    )


def absolute(key: str, place: str, workdir: Path) -> str:
    """A place as every process finds it: a URL as it is, a path from where the user stands.

    Raises:
        ConfigError: for an empty one, naming its key.
    """
    if not place:
        raise ConfigError(f"{key} is empty; name a folder or a URL, such as runs or s3://bucket/runs")
    place = place.removeprefix("file://")
    return place if "://" in place else str(workdir / Path(place).expanduser())

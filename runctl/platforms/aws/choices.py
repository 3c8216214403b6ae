"""What `runctl aws setup` chose for an account, kept among this user's settings by the AWS profile in use."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from runctl.config.files import config_home
from runctl.errors import ConfigError


@dataclass(frozen=True)
class Choices:
    """Where this user's runs lie.

    Attributes:
        region: of the bucket, and of launches that name none.
        bucket: its name.
    """

    region: str
    bucket: str

    @property
    def root(self) -> str:
        """What `run.root` is if nothing is said."""
        return f"s3://{self.bucket}/runs"


def path() -> Path:
    """The file, which need not exist."""
    return config_home() / "aws.json"


def saved() -> Choices | None:
    """What was chosen for the AWS profile in use; None if nothing was.

    Raises:
        ConfigError: for a file that cannot be read.
    """
    chosen = _read().get(_profile())
    try:
        return None if chosen is None else Choices(**chosen)
    except TypeError as error:
        raise ConfigError(f"{path()}: {error}; run `runctl aws setup` again") from error


def region(of_settings: str | None) -> str | None:
    """The region of launches that name none: of the environment, else what was chosen, else of AWS's own settings.

    Args:
        of_settings: what those settings say.

    Raises:
        ConfigError: as `saved`.
    """
    if named := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        return named
    chosen = saved()
    return of_settings if chosen is None else chosen.region


def save(choices: Choices) -> None:
    """Keep what was chosen for the AWS profile in use.

    Raises:
        ConfigError: if the file cannot be read or written.
    """
    file = path()
    data = {**_read(), _profile(): asdict(choices)}
    aside = file.with_name(f".tmp-{file.name}-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(data, indent=2) + "\n")
        aside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; what was chosen could not be kept") from error


def _read() -> dict[str, dict[str, str]]:
    try:
        data = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path()} cannot be read: {error}; run `runctl aws setup` again") from error
    return data if isinstance(data, dict) else {}


def _profile() -> str:
    return os.environ.get("AWS_PROFILE") or "default"

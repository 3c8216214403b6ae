"""The values of secrets, on the host that needs them, from where each is kept.

    python -m runctl.hosts.secrets '{"NAME": "ssm:/path", …}' COMMAND…

becomes the command with the values in its environment, for whoever prepares a host and has nothing of ours to import.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from runctl.errors import ConfigError, RunctlError

ENV, SSM, SECRETS_MANAGER = "env:", "ssm:", "secretsmanager:"
#: A file of this host's, which a platform has put there for one attempt.
FILE = "file:"
#: A secret of RunPod's, which puts it into the environment of a pod; where it has none of that name its mark stays.
RUNPOD = "runpod:"
_UNFILLED = "{{ RUNPOD_SECRET_"


def resolve(references: Mapping[str, str]) -> dict[str, str]:
    """The secrets' values.

    Args:
        references: by variable, where each is kept: `env:NAME` of this process, `ssm:/path`, `secretsmanager:id`,
            `file:/path`.

    Raises:
        ConfigError: for one that is not there or may not be read, by its name alone.
    """
    values = {}
    for name, reference in references.items():
        named = f"secrets.{name}={reference}"
        if reference.startswith(ENV):
            variable = reference.removeprefix(ENV)
            if variable not in os.environ:
                raise ConfigError(f"{named}: {variable} is not set in the environment")
            values[name] = os.environ[variable]
            if values[name].startswith(_UNFILLED):
                raise ConfigError(f"{named}: RunPod has none of that name; make it at console.runpod.io/user/secrets")
            continue
        if reference.startswith(RUNPOD):
            raise ConfigError(f"{named}: RunPod keeps that for its pods alone; elsewhere keep it in env:NAME")
        if reference.startswith(FILE):
            try:
                values[name] = Path(reference.removeprefix(FILE)).read_text()
            except OSError as error:
                raise ConfigError(f"{named}: {error.strerror}") from error
            continue
        from runctl.hosts import aws_secrets

        if reference.startswith(SSM):
            values[name] = aws_secrets.parameter(reference.removeprefix(SSM), named)
        else:
            values[name] = aws_secrets.secret(reference.removeprefix(SECRETS_MANAGER), named)
    return values


def check(references: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """See that what is kept in the launcher's environment is there, before anything begins.

    Args:
        references: by variable, where each is kept.
        environ: the launcher's environment.

    Raises:
        ConfigError: for the first one that is not set, by its name alone.
    """
    for name, kept in references.items():
        if kept.startswith(ENV) and kept.removeprefix(ENV) not in environ:
            raise ConfigError(f"secrets.{name}={kept}: {kept.removeprefix(ENV)} is not set in the environment")


def own_value(named: str, kept: str, environ: Mapping[str, str]) -> str:
    """The value of a secret that is kept in the launcher's environment, which must have one to send.

    Args:
        named: the secret as it was typed, for the text of an error.
        kept: `env:NAME`.
        environ: the launcher's environment.

    Raises:
        ConfigError: if it is not set, by its name alone.
    """
    variable = kept.removeprefix(ENV)
    if not (value := environ.get(variable, "")):
        raise ConfigError(f"{named}: {variable} is not set in the environment")
    return value


def remove_files(references: Iterable[str]) -> None:
    """Remove the files among places where secrets are kept."""
    for reference in references:
        if reference.startswith(FILE):
            Path(reference.removeprefix(FILE)).unlink(missing_ok=True)


def main() -> None:
    """Become the command of the command line; the first folder in PYTHONPATH, by which we were found, is not its own.

    Raises:
        SystemExit: if a secret cannot be had, after saying so.
    """
    references, *words = sys.argv[1:]
    try:
        values = resolve(json.loads(references))
    except RunctlError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(int(error.exit_code))
    _, _, search = os.environ.pop("PYTHONPATH", "").partition(os.pathsep)
    own = {"PYTHONPATH": search} if search else {}
    os.execvpe(words[0], words, {**os.environ, **own, **values})


if __name__ == "__main__":
    main()

"""Secrets that AWS keeps, read on a host by whatever credentials it has: an instance's are its role's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from runctl.errors import ConfigError

_SSM_RIGHT, _SECRET_RIGHT = "ssm:GetParameter", "secretsmanager:GetSecretValue"
#: DeleteParameters takes no more names at once.
_NAMES_AT_ONCE = 10


def parameter(name: str, named: str) -> str:
    """The value of a parameter of SSM's, decrypted.

    Args:
        name: such as `/team/token`.
        named: the key that asks for it, for the text of errors.

    Raises:
        ConfigError: if there is none, or it may not be read.
    """
    with _translated(named, _SSM_RIGHT):
        return str(_client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


def secret(name: str, named: str) -> str:
    """The text of a secret of Secrets Manager's; arguments and errors as those of `parameter`."""
    with _translated(named, _SECRET_RIGHT):
        return str(_client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def forget(names: Sequence[str]) -> None:
    """Delete parameters; one that is not there is no error.

    Raises:
        ConfigError: if they may not be deleted.
    """
    for begin in range(0, len(names), _NAMES_AT_ONCE):
        with _translated("the parameters of this run's secrets", "ssm:DeleteParameters"):
            _client("ssm").delete_parameters(Names=list(names[begin : begin + _NAMES_AT_ONCE]))


def _client(service: str) -> Any:
    import boto3

    return boto3.Session().client(service)


@contextlib.contextmanager
def _translated(named: str, right: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"{named}: {said}; whoever reads it here needs the right {right}") from error
    except KeyError as error:
        raise ConfigError(f"{named}: it holds bytes, not text") from error

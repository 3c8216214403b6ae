"""The values of an attempt's secrets, read where this host finds them."""

from __future__ import annotations

from collections.abc import Callable

from runctl.agent.order import Order
from runctl.errors import ConfigError
from runctl.hosts import secrets
from runctl.spec import LaunchSpec


def read(order: Order, spec: LaunchSpec, say: Callable[[str], None]) -> tuple[dict[str, str], dict[str, str]]:
    """What the ranks get, and what the installers of their environment get, by variable.

    What was put down for this attempt alone is gone afterwards.

    Args:
        order: where this host finds them; None is where the spec says.
        spec: what there is.
        say: takes lines for the user.

    Raises:
        ConfigError: for one that is not there or may not be read, by its name alone.
    """
    values = secrets.resolve(spec.secrets_for("worker") if order.secrets is None else order.secrets)
    setup: dict[str, str] = {}
    if order.python is None and spec.environment.made:
        setup = secrets.resolve(spec.secrets_for("setup") if order.setup_secrets is None else order.setup_secrets)
    secrets.remove_files([*(order.secrets or {}).values(), *(order.setup_secrets or {}).values()])
    if order.parameters:
        from runctl.hosts import aws_secrets

        try:
            aws_secrets.forget(order.parameters)
        except ConfigError as error:
            say(f"{error}; they stay until the launcher ends the run")
    return values, setup

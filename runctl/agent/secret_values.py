"""The values of an attempt's secrets, read where this host finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runctl.agent.order import Order
from runctl.errors import ConfigError
from runctl.hosts import secrets
from runctl.spec import LaunchSpec


@dataclass(frozen=True)
class Values:
    """By variable: what the ranks get, the installers of their environment, and the agent alone."""

    worker: dict[str, str]
    setup: dict[str, str]
    agent: dict[str, str]


def read(order: Order, spec: LaunchSpec, say: Callable[[str], None]) -> Values:
    """The values of all secrets.

    What was put down for this attempt alone is gone afterwards.

    Args:
        order: where this host finds them; None is where the spec says.
        spec: what there is.
        say: takes lines for the user.

    Raises:
        ConfigError: for one that is not there or may not be read, by its name alone; of the agent's own that is
            only said, for no run is to end because nobody can be notified.
    """
    values = secrets.resolve(spec.secrets_for("worker") if order.secrets is None else order.secrets)
    setup: dict[str, str] = {}
    if order.python is None and spec.environment.made:
        setup = secrets.resolve(spec.secrets_for("setup") if order.setup_secrets is None else order.setup_secrets)
    agent: dict[str, str] = {}
    for name, kept in (spec.secrets_for("agent") if order.agent_secrets is None else order.agent_secrets).items():
        try:
            agent |= secrets.resolve({name: kept})
        except ConfigError as error:
            say(f"{error}; nobody is notified through it")
    for references in (order.secrets, order.setup_secrets, order.agent_secrets):
        secrets.remove_files((references or {}).values())
    if order.parameters:
        from runctl.hosts import aws_secrets

        try:
            aws_secrets.forget(order.parameters)
        except ConfigError as error:
            say(f"{error}; they stay until the launcher ends the run")
    return Values(values, setup, agent)

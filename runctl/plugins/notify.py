"""Notifications: has people told of a run's milestones, by whatever apprise knows (chat, mail, telephones, webhooks).

Source of the addresses: https://github.com/caronc/apprise/wiki
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
from typing import Any

from runctl.errors import ConfigError, MissingExtra
from runctl.milestones import KINDS
from runctl.spec import LaunchSpec, Plan

_log = logging.getLogger(__name__)

_ENV = "env:"
_PAUSES_S = (1.0, 4.0)
#: apprise's own time-outs are four seconds for a connection and four for an answer.
_AT_MOST_S = 30.0
_TYPES = {"finished": "success", "failed": "failure", "interrupted": "warning", "stalled": "warning",
          "budget": "warning", "stopped": "warning"}  # fmt: skip
_UNKNOWN = "its value is no address that apprise knows (github.com/caronc/apprise/wiki lists them)"


def runctl_before_submit(spec: LaunchSpec, plan: Plan) -> None:
    """Check before anything is started what can be checked here.

    Raises:
        MissingExtra: without apprise, for a run on this machine.
        ConfigError: for an address in this environment that is missing or that apprise does not know, by its name.
    """
    if not spec.notify:
        return
    there = importlib.util.find_spec("apprise") is not None
    if not there and plan.platform == "local":
        raise MissingExtra("notify", "notify")
    for name in spec.notify:
        kept = spec.secrets[name]
        if not kept.startswith(_ENV):
            continue
        value = os.environ.get(kept.removeprefix(_ENV))
        if value is None:
            raise ConfigError(f"notify: secrets.{name}={kept}: {kept.removeprefix(_ENV)} is not set in the environment")
        if there and _target(value) is None:
            raise ConfigError(f"notify: secrets.{name}={kept}: {_UNKNOWN}")


def runctl_milestone(spec: LaunchSpec, attempt: int, kind: str, about: dict[str, Any], secrets: dict[str, str]) -> None:
    """Tell everybody at once, and wait for none of them longer than half a minute."""
    if not secrets:
        return
    if importlib.util.find_spec("apprise") is None:
        # The keeper of a rented host installs it; an interpreter of somebody's own may lack it.
        _log.warning("nobody is notified: the agent's Python has no apprise; platform.setup=['pip install apprise']")
        secrets.clear()
        return
    title, text = message(spec, attempt, kind, about)
    threads = [
        threading.Thread(target=_send, args=(name, value, title, text, kind), name=f"runctl-notify-{name}", daemon=True)
        for name, value in secrets.items()
    ]
    deadline = time.monotonic() + _AT_MOST_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def message(spec: LaunchSpec, attempt: int, kind: str, about: dict[str, Any]) -> tuple[str, str]:
    """Title and text of a notification."""
    title = f"{spec.run.id} {KINDS.get(kind, kind)}"
    if kind == "budget":
        title = f"{spec.run.id} has spent {about['share']:.0%} of its {about['max_usd']:g} USD"
    metrics = " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                       for name, value in (about.get("metrics") or {}).items())  # fmt: skip
    market = about.get("market", "own")
    lines = [
        (about.get("reason") or "").strip(),
        f"no new step for {about['for_s']} s" if "for_s" in about else "",
        " ".join(filter(None, [f"step {about['step']}" if about.get("step") is not None else "", metrics])),
        f"attempt {attempt} on " + " ".join(filter(None, [
            about.get("platform"), market if market != "own" else "", about.get("host"),
        ])),
    ]  # fmt: skip
    return title, "\n".join(line[:500] for line in lines if line)


def _send(name: str, value: str, title: str, text: str, kind: str) -> None:
    target = _target(value)
    if target is None:
        _log.warning("notify: %s: %s", name, _UNKNOWN)
        return
    for pause_s in (*_PAUSES_S, None):
        try:
            sent = target.notify(title=title, body=text, notify_type=_TYPES.get(kind, "info"))
        except Exception:  # noqa: BLE001 (whatever a service does, the run goes on; and the text may hold the address)
            sent = False
        if sent:
            return
        if pause_s is not None:
            time.sleep(pause_s)
    _log.warning("notify: %s did not take the news that the run %s", name, KINDS.get(kind, kind))


def _target(value: str) -> Any:
    """What sends to an address; None if apprise does not know it."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would name the address
    target = apprise.Apprise()
    return target if value.strip() and target.add(value.strip()) else None

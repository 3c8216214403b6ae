"""RunPod's API: GraphQL through the SDK's own transport, with queries of ours, and what it answers in our words.

The SDK is imported here alone, and late: that takes 1.6 s and configures the root logger, which is put back. It sends
one request, waits 30 s and repeats nothing (SDK 1.12.0, `api/graphql.py`); who repeats is `purchase` and `pods`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runctl.errors import ConfigError, MissingExtra, NotAllowed
from runctl.platforms.runpod.refusals import Transient, refused

KEY = "RUNPOD_API_KEY"
_HOW_TO_GET_ONE = f"make a key at https://console.runpod.io/user/settings and set {KEY}, or run `runpodctl config`"
#: One thread at a time, or the second would take the first one's logging for the user's.
_IMPORTING = threading.Lock()
#: Names of GraphQL's: fields, arguments, words of an enum.
_NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*", re.ASCII)
#: The arguments whose values are words and no strings.
_WORDS = ("cloudType",)


class Api:
    """Asks RunPod."""

    @property
    def has_key(self) -> bool:
        """Whether there is a key; whether it is good, the first call tells."""
        return key() is not None

    def require_key(self) -> str:
        """The key.

        Raises:
            ConfigError: saying how to get one.
        """
        found = key()
        if found is None:
            raise ConfigError(f"platform=runpod: there is no RunPod API key here; {_HOW_TO_GET_ONE}")
        return found

    def ask(self, what: str, query: str) -> dict[str, Any]:
        """Send one query or mutation, once.

        Args:
            what: for the text of an error, such as "renting a pod".
            query: GraphQL's text.

        Returns:
            What stands under `data`.

        Raises:
            ConfigError: without a key.
            OfferRefused: if there is no capacity.
            NotAllowed: if the key, its rights or the account are in the way.
            Transient: if there is no answer, or none of RunPod's own; the query may have been carried out.
            PlatformError: for everything else that RunPod says.
        """
        found = self.require_key()
        send = self._transport()
        from requests import RequestException
        from runpod.error import AuthenticationError, QueryError

        try:
            told = send(query, api_key=found)
        except AuthenticationError as error:
            raise NotAllowed(f"{what}: RunPod does not accept the API key (401); {_HOW_TO_GET_ONE}") from error
        except QueryError as error:
            raise refused(what, _said(error, found)) from None  # its text holds the whole query
        except (RequestException, ValueError, KeyError, TypeError) as error:
            # A page of HTML, a cut connection, nothing for 30 s.
            raise Transient(f"{what}: no answer of RunPod's: {_said(error, found)}") from error
        data = told.get("data") if isinstance(told, dict) else None
        if not isinstance(data, dict):
            raise Transient(f"{what}: no answer of RunPod's: neither data nor errors")
        return data

    def _transport(self) -> Callable[..., dict[str, Any]]:
        """The SDK's `run_graphql_query`.

        Raises:
            MissingExtra: without the SDK.
        """
        with _IMPORTING:
            root = logging.getLogger()
            handlers, level = root.handlers[:], root.level
            try:
                from runpod.api.graphql import run_graphql_query
            except ImportError as error:
                raise MissingExtra("platform=runpod", "runpod") from error
            finally:
                for added in [one for one in root.handlers if one not in handlers]:
                    root.removeHandler(added)
                root.setLevel(level)
        send: Callable[..., dict[str, Any]] = run_graphql_query
        return send


def key() -> str | None:
    """The API key: of the environment, else of runpodctl's or the SDK's file; None if there is none.

    Both keep it in ~/.runpod/config.toml: runpodctl as `apikey`, the SDK as `api_key` in `[default]`.

    Raises:
        ConfigError: if that file cannot be read.
    """
    if given := os.environ.get(KEY, "").strip():
        return given
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # comes with the SDK
        except ImportError:
            return None
    path = Path.home() / ".runpod" / "config.toml"
    try:
        told = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}; {_HOW_TO_GET_ONE}") from error
    of_profile = told.get("default")
    for keys in (told, of_profile if isinstance(of_profile, dict) else {}):
        for name, value in keys.items():
            if name.lower().replace("_", "") == "apikey" and isinstance(value, str) and value.strip():
                return value.strip()
    return None


def literal(value: object, name: str = "") -> str:
    """A value as GraphQL writes it: nothing that stands in a string can end it.

    GraphQL's escapes are those of JSON (spec.graphql.org/October2021/#sec-String-Value).

    Args:
        value: None, a bool, a number, a string, a list or a mapping.
        name: of the argument, of which some take a word of an enum.

    Raises:
        ConfigError: for a text that cannot be sent, or a name that is none.
        TypeError: for a value of another type.
    """
    if name in _WORDS and isinstance(value, str):
        return _name(value)
    if value is None or isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{value} cannot be sent to RunPod: no number")
        return repr(value)
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ConfigError(f"{value!r} cannot be sent to RunPod: no text in UTF-8, or a zero byte in it")
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(key)}: {literal(one, key)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(literal(one) for one in value) + "]"
    raise TypeError(f"{type(value).__name__} is nothing of GraphQL's")


def mutation(call: str, arguments: Mapping[str, object], fields: str = "") -> str:
    """The text of a mutation.

    Args:
        call: its name.
        arguments: of its input.
        fields: what it is to answer; empty for one that answers nothing.
    """
    return f"mutation {{ {_name(call)}(input: {literal(arguments)}){f' {{ {fields} }}' if fields else ''} }}"


def _name(word: object) -> str:
    if not isinstance(word, str) or not _NAME.fullmatch(word):
        raise ConfigError(f"{word!r} cannot be sent to RunPod: no name of GraphQL's")
    return word


def _said(error: Exception, secret: str) -> str:
    """What an error says, in one line, without the key."""
    text = f"{error}" if getattr(error, "query", None) else f"{type(error).__name__}: {error}"
    return " ".join(text.replace(secret, "***").split())[:500]

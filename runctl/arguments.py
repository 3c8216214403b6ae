"""The script's arguments as its command line or its environment (pure).

Everything here ends up in an argv list or an environment, never in a shell: a value may hold spaces, quotes,
`$()`, newlines or unicode and arrives byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["argparse", "hydra", "env", "none"]
Keys = Literal["keep", "dashes"]
Booleans = Literal["value", "flag"]
Lists = Literal["repeat", "space", "comma"]


@dataclass(frozen=True)
class ArgumentStyle:
    """How a script takes its arguments.

    Attributes:
        style: `argparse` gives `--lr=0.001` (the equals form, so that negative values and strict parsers
            work), `hydra` gives `lr=0.001`, `env` sets `LR=0.001` in the environment, `none` gives nothing.
        keys: `dashes` writes `--learning-rate` for `learning_rate`.
        booleans: `value` gives `--amp=True`, `flag` gives `--amp` or nothing.
        lists: `repeat` gives `--x=1 --x=2`, `space` gives `--x 1 2`, `comma` gives `--x=1,2`.
    """

    style: Style = "argparse"
    keys: Keys = "keep"
    booleans: Booleans = "value"
    lists: Lists = "repeat"


def flatten(args: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested arguments under their dotted names: `{"model": {"dim": 8}}` → `{"model.dim": 8}`."""
    flat: dict[str, Any] = {}
    for key, value in args.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def render_argv(args: Mapping[str, Any], style: ArgumentStyle) -> list[str]:
    """The arguments as command-line words, in order; a `None` is left out."""
    if style.style in ("env", "none"):
        return []
    words: list[str] = []
    for name, value in args.items():
        key = name.replace("_", "-") if style.keys == "dashes" else name
        if value is None:
            continue
        words += [f"{key}={_hydra_value(value)}"] if style.style == "hydra" else _argparse_words(key, value, style)
    return words


def render_env(args: Mapping[str, Any], style: ArgumentStyle) -> dict[str, str]:
    """The arguments as environment variables (`model.dim` → `MODEL_DIM`) where the style asks for them."""
    if style.style != "env":
        return {}
    return {
        re.sub(r"[^A-Za-z0-9]", "_", key).upper(): ",".join(map(_text, value)) if _is_list(value) else _text(value)
        for key, value in args.items()
        if value is not None
    }


def quote_for_hydra(value: str) -> str:
    """A string as Hydra's override grammar reads it back unchanged.

    Two readers take escapes away, and each looks only at backslashes that stand before something of its own:
    OmegaConf before `${`, which is an interpolation otherwise, and Hydra's grammar before a quote.
    """
    for_omegaconf = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)\Z", r"\1\1", for_omegaconf)) + "'"


def _argparse_words(key: str, value: Any, style: ArgumentStyle) -> list[str]:
    if isinstance(value, bool) and style.booleans == "flag":
        return [f"--{key}"] if value else []
    if not _is_list(value):
        return [f"--{key}={_text(value)}"]
    if style.lists == "repeat":
        return [f"--{key}={_text(item)}" for item in value]
    if style.lists == "space":
        return [f"--{key}", *map(_text, value)] if value else []
    return [f"--{key}={','.join(map(_text, value))}"]


def _hydra_value(value: Any) -> str:
    if _is_list(value):
        return "[" + ",".join(map(_hydra_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_hydra_value(item)}" for key, item in value.items()) + "}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not _plain_for_hydra(value):
        return quote_for_hydra(value)
    return _text(value)


def _plain_for_hydra(value: str) -> bool:
    """Whether a string needs no quotes: safe characters, and nothing that reads as another type."""
    if not re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value):
        return False
    return value.lower() not in ("null", "true", "false", "nan", "inf")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _text(value: Any) -> str:
    return "" if value is None else str(value)

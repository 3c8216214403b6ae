"""Multipliers: a platform's factors applied to the script's arguments, base → effective (pure).

A bigger machine takes a bigger batch, and a bigger batch wants another learning rate. Both move together or
not at all: a batch size that grew alone changes a training in silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from runctl.errors import ConfigError

Rule = Literal["explicit", "linear", "sqrt", "none"]

#: Names under which scripts take the two arguments that belong together. A multiplier given for one of a
#: family applies to whichever of its names the script has.
BATCH_SIZE_NAMES = ("batch_size", "batch-size", "per_device_train_batch_size", "train_batch_size", "bs")
LEARNING_RATE_NAMES = ("learning_rate", "learning-rate", "lr")
_FAMILIES = (BATCH_SIZE_NAMES, LEARNING_RATE_NAMES)

TYPED_SOURCES = ("command line", "sweep")
#: The source of what a platform sets outright (`platform.args.epochs: 50`): it is meant as it stands.
OUTRIGHT = "platform.args"


@dataclass(frozen=True)
class Argument:
    """One argument of the script: where its value came from and what became of it.

    Attributes:
        base: the value before scaling.
        multiplier: the factor that was applied, or None.
        effective: what the script receives.
        source: the file, or "command line" or "sweep", that gave the base value.
        note: why a multiplier that exists was not applied; empty otherwise.
    """

    base: Any
    multiplier: float | None
    effective: Any
    source: str
    note: str = ""


def scale(
    args: Mapping[str, Any],
    sources: Mapping[str, str],
    multipliers: Mapping[str, Any],
    *,
    rule: Rule = "explicit",
    respect_overrides: bool = True,
    strict: bool = False,
) -> dict[str, Argument]:
    """Apply multipliers to the arguments that came from files.

    Args:
        args: the script's arguments, flat (a nested one under its dotted name).
        sources: where each argument's value came from; `TYPED_SOURCES` are taken as typed.
        multipliers: factor per argument, above zero; None turns one off. `batch_size` and `learning_rate`
            also reach the other names in use for them; of two for one argument the later counts.
        rule: `explicit` takes the multipliers as given; `linear` and `sqrt` derive the learning rate's from
            the batch size's, k and √k; `none` scales nothing. The linear rule is Goyal et al. 2017
            (arXiv 1706.02677, §2.1), the square-root rule Krizhevsky 2014 (arXiv 1404.5997, §5).
        respect_overrides: False scales typed and swept values too.
        strict: a multiplier whose argument is absent is an error.

    Returns:
        An `Argument` for every entry of `args`, in its order.

    Raises:
        ConfigError: for a factor that is not above zero, an argument that is not a number, or, when strict,
            multipliers without an argument (all of them named).
    """
    for name, factor in multipliers.items():
        if factor is not None and not _is_factor(factor):
            raise ConfigError(f"multipliers.{name}={factor}: a multiplier is a number above 0 (null turns it off)")
    factors, absent = _by_argument(args, {} if rule == "none" else _derived(multipliers, rule))
    if absent and strict:
        raise ConfigError(
            f"scaling.strict=true: no argument for the multipliers of {', '.join(absent)}; "
            f"args has {', '.join(args) or 'nothing'}"
        )
    typed = TYPED_SOURCES if respect_overrides else ()
    notes = _left_alone({name: sources.get(name, "") for name in factors}, absent, typed)
    return {
        name: _scaled(name, value, sources.get(name, "config"), factors.get(name), notes.get(name, ""))
        for name, value in args.items()
    }


def describe(platform: str, arguments: Mapping[str, Argument]) -> str | None:
    """One line that says what was scaled and what was left, or None if there was nothing to scale.

    Example: `aws: batch_size 64 × 4 = 256, learning_rate 0.001 × 4 = 0.004`.
    """
    parts = [
        f"{name} {arg.base} × {arg.multiplier:g} = {arg.effective}"
        for name, arg in arguments.items()
        if arg.multiplier is not None
    ]
    parts += [f"{name} {arg.base} left ({arg.note})" for name, arg in arguments.items() if arg.note]
    return f"{platform}: {', '.join(parts)}" if parts else None


def _is_factor(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 and math.isfinite(value)


def _derived(multipliers: Mapping[str, float | None], rule: Rule) -> Mapping[str, float | None]:
    """The multipliers, the learning rate's derived from the batch size's where the rule says so."""
    if rule not in ("linear", "sqrt"):
        return multipliers
    others = {name: factor for name, factor in multipliers.items() if name not in LEARNING_RATE_NAMES}
    batch = _last(multipliers, BATCH_SIZE_NAMES)
    off = any(multipliers.get(name, 0) is None for name in LEARNING_RATE_NAMES)
    if batch is None or off:
        return others
    return {**others, "learning_rate": batch if rule == "linear" else math.sqrt(batch)}


def _last(multipliers: Mapping[str, float | None], names: tuple[str, ...]) -> float | None:
    """The factor that counts for one argument under its several names: the last one given."""
    found = [factor for name, factor in multipliers.items() if name in names]
    return found[-1] if found else None


def _by_argument(
    args: Mapping[str, Any], multipliers: Mapping[str, float | None]
) -> tuple[dict[str, float], list[str]]:
    """Factor per argument that has a value, and the names of the multipliers for which there is none."""
    factors: dict[str, float | None] = {}
    absent: dict[str, float | None] = {}
    for name, factor in multipliers.items():
        aliases = next((family for family in _FAMILIES if name in family), ())
        target = next((alias for alias in (name, *aliases) if args.get(alias) is not None), None)
        if target is not None:
            factors[target] = factor
        else:
            absent[name] = factor
    on = {name: factor for name, factor in factors.items() if factor is not None}
    return on, [name for name, factor in absent.items() if factor is not None]


def _left_alone(sources: Mapping[str, str], absent: list[str], typed: tuple[str, ...]) -> dict[str, str]:
    """Why an argument that has a factor keeps its base value all the same.

    Args:
        sources: where the value of each argument that has a factor came from.
        absent: names of the multipliers without an argument.
        typed: the sources whose values are taken as typed.
    """
    why = {"command line": "typed", "sweep": "swept", OUTRIGHT: "set by the platform"}
    notes = {name: why[source] for name, source in sources.items() if source in (*typed, OUTRIGHT)}
    paired = {name for family in _FAMILIES for name in family}
    held = {name: note for name, note in notes.items() if name in paired}
    held |= {name: "not among args" for name in absent if name in paired}
    for name in sources:
        if held and name in paired and name not in held:
            other, reason = next(iter(held.items()))
            notes[name] = f"moves together with {other}, which is {reason}"
    return notes


def _scaled(name: str, value: Any, source: str, factor: float | None, note: str) -> Argument:
    if factor is None or note:
        return Argument(value, None, value, source, note)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"multipliers.{name}={factor:g}: args.{name}={value!r} is not a number; "
            f"turn the multiplier off with multipliers.{name}=null"
        )
    # Decimal, so that 0.1 × 3 is 0.3 and a person recognises the number.
    exact = Decimal(repr(value)) * Decimal(repr(factor))
    effective = _rounded(exact) if isinstance(value, int) else float(exact)
    return Argument(value, factor, effective, source)


def _rounded(exact: Decimal) -> int:
    """An integer stays one: rounded half away from zero, and never to zero."""
    whole = int(exact.to_integral_value(ROUND_HALF_UP))
    if whole == 0 and exact != 0:
        return 1 if exact > 0 else -1
    return whole

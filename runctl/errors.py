"""The exception tree and the exit codes.

Every error that a user can meet derives from `RunctlError`: its text says what is wrong, which value, and
what to do next, and its class carries the exit code of the command. Whatever does not derive from it is a
bug in runctl and shows its traceback.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `runctl-launch`; a failing training's own code passes through unchanged.

    The numbers follow existing custom where there is one: 2 is a usage error in POSIX utilities, 124 is what
    `timeout(1)` returns, 128 + N is a death by signal N in every shell, 70 to 77 come from `sysexits.h`.
    """

    OK = 0
    FAILED = 1
    CONFIG = 2
    SOFTWARE = 70
    HOST_LOST = 71
    NO_CAPACITY = 75
    VETOED = 77
    NOT_ALLOWED = 78
    LIMIT = 124
    USER_INTERRUPT = 130
    STOPPED = 143


class RunctlError(Exception):
    """Base of every error that runctl raises on purpose."""

    exit_code: ExitCode = ExitCode.SOFTWARE


class ConfigError(RunctlError):
    """The command line or a configuration file asks for something that cannot be."""

    exit_code = ExitCode.CONFIG


class LeaseHeld(ConfigError):
    """The run is alive already: another launch holds its lease."""


class MissingExtra(ConfigError):
    """An optional part of runctl is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra that is not installed: pip install 'runctl[{extra}]'")


class NotBuiltYet(ConfigError):
    """The request is sound, but this version of runctl cannot carry it out."""


class PluginError(ConfigError):
    """A plugin cannot be loaded: a broken import, or a hook that does not exist."""


class HookFailed(RunctlError):
    """A hook raised before anything was submitted."""

    exit_code = ExitCode.SOFTWARE


class Vetoed(RunctlError):
    """A plugin's `runctl_before_submit` refused the launch. Plugins raise this to veto."""

    exit_code = ExitCode.VETOED


class StorageError(RunctlError):
    """A run directory could not be read or written."""

    exit_code = ExitCode.CONFIG


class OutputLost(RunctlError, OSError):
    """Standard output could not be written, as on a full disk; `OSError` too, for whoever can do without it."""

    exit_code = ExitCode.FAILED


class DataError(RunctlError):
    """Data could not be brought to the host or from it, or prepared there."""

    exit_code = ExitCode.FAILED


class EnvironmentFailed(RunctlError):
    """The ranks' Python environment could not be made, or does not fit the host."""

    exit_code = ExitCode.FAILED


class PlatformError(RunctlError):
    """A platform could not carry out a plan."""


class NoCapacity(PlatformError):
    """No offer of the platform could be had within the time given."""

    exit_code = ExitCode.NO_CAPACITY


class OfferRefused(PlatformError):
    """One offer cannot be had now: the next one may be."""

    exit_code = ExitCode.NO_CAPACITY


class MarketClosed(OfferRefused):
    """A market has nothing for this account, however long one waits."""


class NotAllowed(PlatformError):
    """A quota, a permission or the account itself is in the way: another offer would meet the same."""

    exit_code = ExitCode.NOT_ALLOWED


class Stopped(RunctlError):
    """The user stopped a launch that had nothing running just then."""

    exit_code = ExitCode.USER_INTERRUPT


class AgentLost(PlatformError):
    """The agent ended without leaving a record of its attempt."""

    exit_code = ExitCode.HOST_LOST


class CheckpointError(RunctlError):
    """A checkpoint could not be written or restored."""


class CheckpointCorrupt(CheckpointError):
    """A folder is no checkpoint, or not the one that was written."""


class CheckpointUnloadable(CheckpointError):
    """What was to be saved would not load again, or a verified checkpoint does not load."""

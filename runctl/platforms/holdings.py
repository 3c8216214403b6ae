"""What an account holds that carries runctl's mark: hosts and what was made for them."""

from __future__ import annotations

from dataclasses import dataclass

from runctl.platforms.hosts import Host

#: Kinds that run.
HOSTS = ("instance", "pod")


@dataclass(frozen=True)
class Holding:
    """One thing.

    Attributes:
        platform: whose.
        kind: `instance`, `pod`, `volume`, `security group`, `upload` (one that was never finished), `parameter`.
        id: by which it is ended; of an upload `s3://bucket/key#id`.
        region: where; empty for what lies in none.
        run_id: for which run it was made; empty for none in particular.
        attempt: for which attempt of it, or None.
        root: where that run's directory lies, or None if it does not say.
        created_at: seconds since the epoch, or None where that is not told.
        ends_at: when it ends itself, or None where that is not told.
        price_usd_per_hour: what it costs; None where that is not known.
        in_use: whether something that lives needs it.
        name: that its rent gave it; empty where that tells nothing.
    """

    platform: str
    kind: str
    id: str
    region: str = ""
    run_id: str = ""
    attempt: int | None = None
    root: str | None = None
    created_at: float | None = None
    ends_at: float | None = None
    price_usd_per_hour: float | None = None
    in_use: bool = False
    name: str = ""

    @classmethod
    def of(cls, host: Host, kind: str) -> Holding:
        """A host."""
        attempt = host.attempt if host.attempt >= 0 else None
        return cls(
            host.platform, kind, host.id, host.region, host.run, attempt, host.root, host.launched_at, host.ends_at,
            host.price_usd_per_hour,
        )  # fmt: skip

"""The runs that this machine knows: an SQLite file among the user's state.

An index only. What it tells of a run was seen in its run directory when somebody looked last, and `runctl reindex`
makes it anew from there; losing the file loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runctl.config.files import state_home
from runctl.encoding import to_data
from runctl.errors import StorageError
from runctl.spec import LaunchSpec

if TYPE_CHECKING:
    from runctl.cost import Bill

#: How long a writer waits for another one.
_BUSY_S = 10.0
_VERSION = 3
_TABLE = """
create table if not exists runs (
    url text primary key,
    id text not null,
    name text not null,
    platform text not null,
    state text not null,
    created_at real not null,
    seen_at real not null,
    project text,
    tags text not null,
    seen text not null
);
create index if not exists runs_by_id on runs (id);
create index if not exists runs_by_name on runs (name, created_at);
create index if not exists runs_by_time on runs (created_at);
create index if not exists runs_by_state on runs (state);
create table if not exists bills (url text primary key, bills text not null);
create table if not exists waits (root text primary key, until real not null);
"""


@dataclass(frozen=True)
class Entry:
    """What is known of one run.

    Attributes:
        url: its run directory.
        state: as it was seen last: a `RunState`'s value, or `lost`.
        created_at: when it was launched first (seconds since the epoch).
        seen_at: when somebody looked last.
        project: the project from which it was launched on this machine; None if it was launched elsewhere.
        seen: where it stood then, as `Standing` tells it; {} for a run that nobody has looked at yet.
    """

    url: str
    id: str
    name: str
    platform: str
    state: str
    created_at: float
    seen_at: float
    project: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begun(cls, url: str, spec: LaunchSpec, platform: str, project: str | None) -> Entry:
        """A run that has just been launched from this machine."""
        now = time.time()
        return cls(url, spec.run.id, spec.run.name, platform, "pending", now, now, project, spec.tags)

    def is_billed_by(self, bills: Sequence[Bill]) -> bool:
        """Whether these bills are of all its attempts: it may have gone on since they were kept."""
        return bool(bills) and bills[-1].attempt == self.seen.get("attempt")


class Registry:
    """The file. Any number of processes may read and write it at once (SQLite's write-ahead log).

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_home() / "runs.sqlite"

    def note(self, entry: Entry) -> None:
        """Take in what is known of a run. When it began stays as it was noted first; the project is the last one from
        which it was launched on this machine: `runctl resume` goes on with that.

        Raises:
            StorageError: if the file cannot be written.
        """
        self.note_all([entry])

    def note_all(self, entries: list[Entry]) -> None:
        """Take in several at once; see `note`."""
        rows = [
            (one.url, one.id, one.name, one.platform, one.state, one.created_at, one.seen_at, one.project,
             json.dumps(one.tags, ensure_ascii=False), json.dumps(one.seen, ensure_ascii=False))
            for one in entries
        ]  # fmt: skip
        with self._open() as database:
            database.executemany(
                "insert into runs values (?,?,?,?,?,?,?,?,?,?) on conflict (url) do update set id=excluded.id, "
                "name=excluded.name, platform=excluded.platform, state=excluded.state, "
                "created_at=min(created_at, excluded.created_at), seen_at=excluded.seen_at, "
                "project=coalesce(excluded.project, project), tags=excluded.tags, "
                # A launch that begins has seen nothing; what was seen before counts until it has.
                "seen=case excluded.seen when '{}' then seen else excluded.seen end",
                rows,
            )

    def forget(self, url: str) -> None:
        """Leave a run out from now on."""
        with self._open() as database:
            database.execute("delete from runs where url = ?", (url,))
            database.execute("delete from bills where url = ?", (url,))

    def keep_bills(self, bills: Mapping[str, Sequence[Bill]]) -> None:
        """Keep what runs cost that have ended, by run directory: so that nobody has to be asked again."""
        rows = [(url, json.dumps(to_data(list(of_run)))) for url, of_run in bills.items()]
        with self._open() as database:
            database.executemany("insert or replace into bills values (?, ?)", rows)

    def bills(self) -> dict[str, list[Bill]]:
        """What was kept of those, by run directory."""
        from runctl.cost import Bill  # late, as everything that completion does not need

        if not self.path.exists():
            return {}
        with self._open() as database:
            rows = database.execute("select url, bills from bills").fetchall()
        found = {}
        for row in rows:
            with contextlib.suppress(TypeError):  # another version kept it: asked for again
                found[row["url"]] = [Bill(**one) for one in json.loads(row["bills"])]
        return found

    def note_wait(self, root: str, until: float) -> None:
        """Take in that a host waits for the next launch below a root of runs, until then (seconds since the epoch)."""
        with self._open() as database:
            database.execute(
                "insert into waits values (?, ?) on conflict (root) do update set until=max(until, excluded.until)",
                (root, until),
            )

    def waited_below(self, since: float) -> list[str]:
        """Below which roots hosts waited after that moment (seconds since the epoch), or wait."""
        if not self.path.exists():
            return []
        with self._open() as database:
            return [row["root"] for row in database.execute("select root from waits where until > ?", (since,))]

    def entries(
        self, *, ended: bool | None = None, since: float | None = None, limit: int | None = None
    ) -> list[Entry]:
        """What is known, the newest first.

        Args:
            ended: only runs that had ended for good when they were seen last, or only those that had not; None for
                both.
            since: only those that were launched later than this (seconds since the epoch).
            limit: at most so many.
        """
        # The last two may come back: what was lost goes on once its storage answers again.
        alive = "state in ('pending', 'running', 'stopping', 'interrupted', 'lost')"
        tests = {None: "1", True: f"not {alive}", False: alive}
        return self._select(
            f"{tests[ended]} and created_at >= ? order by created_at desc limit ?",
            (since or 0.0, -1 if limit is None else limit),
        )

    def at(self, url: str) -> Entry | None:
        """The run of that run directory."""
        found = self._select("url = ?", (url,))
        return found[0] if found else None

    def named(self, word: str) -> list[Entry]:
        """Runs that a word may mean, the newest first: those of that id, else those whose id begins so, or of that
        name.
        """
        exact = self._select("id = ? order by created_at desc", (word,))
        if exact:
            return exact
        # `between` and not `like`: the index serves it, and a % or _ of the user's means itself.
        where = "id between ? and ? or name = ? order by created_at desc"
        return self._select(where, (word, word + "\U0010ffff", word))

    def newest(self) -> Entry | None:
        found = self.entries(limit=1)
        return found[0] if found else None

    def roots(self) -> list[str]:
        """Where runs lie, the newest first."""
        urls = [one.url for one in self._select("1 order by created_at desc", ())]
        return list(dict.fromkeys(url.rsplit("/", 1)[0] for url in urls))

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Entry]:
        if not self.path.exists():
            return []
        with self._open() as database:
            rows = database.execute(f"select * from runs where {where}", values).fetchall()
        return [_entry(tuple(row)) for row in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, opened for one transaction.

        Raises:
            StorageError: if it cannot be opened, read or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as database:
                (version,) = database.execute("pragma user_version").fetchone()
                if version < _VERSION:  # a new file, or one that lacks tables
                    _log_ahead(database)
                    database.executescript(f"begin immediate; {_TABLE} pragma user_version = {_VERSION}; commit;")
                elif version != _VERSION:
                    raise StorageError(
                        f"{self.path} was written by another version of runctl ({version}, not {_VERSION}); "
                        "delete it and run `runctl reindex`: it is an index only"
                    )
                database.execute("pragma synchronous = normal")
                database.row_factory = sqlite3.Row
                with database:
                    yield database
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{self.path}: {error}; it is an index only: if it is damaged, delete it and run `runctl reindex`"
            ) from error


def _log_ahead(database: sqlite3.Connection) -> None:
    """Go over to write-ahead logging. SQLite's own patience does not hold for that: while another writes, it fails."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _entry(row: Any) -> Entry:
    """A row of the table, whose columns are the fields of `Entry`."""
    *columns, tags, seen = row
    fields: list[Any] = [*columns, _loaded(tags), _loaded(seen)]
    return Entry(*fields)


def _loaded(text: str) -> dict[str, Any]:
    value: dict[str, Any] = {} if text == "{}" else json.loads(text)
    return value

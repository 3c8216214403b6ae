"""A sweep: takes jobs as they are composed, has so many of them carried out at once, and says what came of them."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from hydra.core.hydra_config import HydraConfig

from runctl import terminal, warm
from runctl.composed import Composed, Composer, Manner, keep_warm_s
from runctl.errors import ConfigError, ExitCode, PlatformError, RunctlError, StorageError
from runctl.rundir import run_url
from runctl.signals import PassedOn, StopSignals
from runctl.spec import Logs
from runctl.sweeps import remarks, slots, table
from runctl.sweeps.board import Board
from runctl.sweeps.job import Job, overrides_of, run_id_of
from runctl.sweeps.notes import Notes
from runctl.sweeps.places import Places, PlaceTaken
from runctl.sweeps.turn import Common, Turn

_TICK_S = 0.2
#: Between two records of where all jobs stand.
_KEEP_S = 5.0


class Sweep:
    """The jobs of one command line.

    Args:
        composer: makes platforms for them.
        ready: freezes a job's configuration; a number for one that wanted no run and was dealt with.
        notes: where jobs leave word that another launcher carries out, in processes of its own.
    """

    def __init__(self, composer: Composer, ready: Callable[[Any], Composed | int], notes: Notes) -> None:
        self._composer = composer
        self._ready = ready
        self._notes = notes
        self._common: Common | None = None
        self._jobs: dict[str, Job] = {}
        self._codes: list[int] = []
        self._stop: signal.Signals | None = None
        #: Jobs that the sweeper wants and nobody has composed yet; after a stop nobody will.
        self.coming = 0
        #: Whether the command was carried out in the drill, as a whole.
        self.rehearsed = False
        self._kept_at = 0.0
        self._held: list[Job] = []
        self._has_begun = False

    # --- jobs that our own launcher brings ---

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """While jobs are taken and carried out; at the end all of them have ended.

        Raises:
            KeyboardInterrupt: if they were stopped: no more are wanted.
        """
        self._futures: list[Future[None]] = []
        with StopSignals().caught() as self._signals:
            self._told = 0
            try:
                yield
                self._begin()
            except BaseException:
                if self._common is not None and not self._has_begun:  # then there is nothing to show
                    self._board.close()
                    self._common = None
                raise
            finally:
                self._wait()
        if self._stop is not None:
            raise KeyboardInterrupt

    def _wait(self) -> None:
        """For all of them. Whatever goes wrong here, none is left to run without us."""
        try:
            pending: set[Future[None]] = set(self._futures)
            while pending:
                self._look()
                pending = wait(pending, timeout=_TICK_S).not_done
        except BaseException:
            self._pass_on(signal.SIGTERM)
            raise

    @property
    def stopped(self) -> bool:
        return self.rehearsed or bool(self._signals.received)

    def take(self, cfg: Any) -> Job | None:
        """Have one configuration carried out as soon as its turn comes; None if it wanted no run.

        Raises:
            RunctlError: if it cannot be, and is the first one.
        """
        try:
            launch = self._ready(cfg)
            if isinstance(launch, int):
                self._codes.append(launch)
                return None
            if self._common is None:
                self._planner = self._composer.planner(launch.cfg)
                common = Common.of(launch, self._composer)
                self._open(launch, common)
                self._common = common
            launch = launch.as_run(run_id_of(launch, self._common.book.generation))
            self._places.take(launch)
        except RunctlError as error:
            if self._common is None or (isinstance(error, PlaceTaken) and not self._has_begun):
                raise
            return self._unfit(error)
        run_id = launch.spec.run.id
        if run_id in self._jobs:
            return self._jobs[run_id]
        if self._slots.count > 1:
            launch = replace(launch, spec=replace(launch.spec, logs=Logs("none")))
        yaml = launch.yaml()  # now, for the configuration is large and the text is not
        job = self._job(replace(launch, yaml=lambda: yaml))
        job.signals = PassedOn()
        self._jobs[run_id] = job
        self._held.append(job)
        if len(self._jobs) > 1:
            self._begin()
        self._look()
        return job

    def _begin(self) -> None:
        """Have jobs carried out; the first one is held until the next one has shown that both can be."""
        for job in self._held:
            self._futures.append(self._pool.submit(self._in_thread, job))
            self._has_begun = True
        self._held.clear()

    def value(self, job: Job | None) -> Any:
        """What a sweeper is told of a job: nothing of one that failed, which is a failure to it and ends no other."""
        if job is None or job.failed or self._common is None:
            return None
        values = [job.values.get(one.metric) for one in self._common.settings.objectives]
        if not values or any(value is None or math.isnan(value) for value in values):
            return None
        return values[0] if len(values) == 1 else tuple(values)

    def _open(self, launch: Composed, common: Common) -> None:
        """Make the places in which jobs are carried out.

        Raises:
            ConfigError: for more than there is.
        """
        settings, rented = common.settings, self._planner.terms.rented
        self._keep_warm_s, self._root = keep_warm_s(launch.cfg), launch.spec.run.root
        host = getattr(launch.cfg.platform, "host", None)
        if host is not None:
            if settings.hosts is not None or (settings.max_parallel or 1) > 1:
                raise ConfigError(f"platform.host={host} is one host, for one job at a time: sweep.max_parallel=1")
            settings = replace(settings, max_parallel=1)
        if rented:
            self._slots = slots.rented(settings, self._planner, self._root, common.book.name, self._keep_warm_s)
        elif settings.hosts is not None:
            raise ConfigError(f"sweep.hosts={settings.hosts}: it is for platforms that rent; here: sweep.max_parallel")
        else:
            self._slots = slots.here(settings, launch.spec)
        self._pool = ThreadPoolExecutor(self._slots.count, "runctl-job")
        self._places = Places(
            rented=rented, at_once=self._slots.count > 1, one_by_one=common.settings.max_parallel == 1
        )
        self._turn = Turn(self._composer, common, lambda: list(self._jobs.values()))
        self._board = Board(self._jobs, live=self._slots.count > 1, metrics=[one.metric for one in settings.objectives])
        word = "sweep.max_parallel" if settings.hosts is None else "sweep.hosts"
        if self._slots.count > 1:
            self._board.tell(f"sweep {common.book.name}: {self._slots.count} at a time ({word}); "
                             "what they print is in their run directories")  # fmt: skip

    def _unfit(self, error: RunctlError) -> Job:
        """A job whose configuration cannot be, while others can."""
        overrides = overrides_of(HydraConfig.get().overrides.task)
        job = Job(len(self._jobs) + 1, overrides, state="failed", exit_code=int(error.exit_code), reason=str(error))
        self._jobs[f"job {job.number}"] = job
        self._board.tell(str(error), job)
        return job

    def _job(self, launch: Composed) -> Job:
        """A job as an earlier command left it, if one did."""
        assert self._common is not None
        spec, book = launch.spec, self._common.book
        job = Job(
            len(self._jobs) + 1, overrides_of(launch.swept), spec.run.id, run_url(spec.run.root, spec.run.id), launch
        )
        job.code, job.cost_usd = book.code_of(spec.run.id), book.cost_of(spec.run.id)
        job.values = book.values_of(spec.run.id)
        return job

    def _look(self) -> None:
        """Pass signals on, and show and keep where jobs stand."""
        for signum in self._signals.received[self._told :]:
            self._told += 1
            self._stop = self._stop or signum
            self._pass_on(signum)
            once = f"{signum.name}: stopping all of it; once more to stop at once"
            self._board.tell(once if self._told == 1 else "stopping at once")
        if not self._has_begun:
            return
        self._board.refresh()
        if time.monotonic() - self._kept_at > _KEEP_S:
            self._kept_at = time.monotonic()
            self._keep()

    def _pass_on(self, signum: signal.Signals) -> None:
        for job in self._jobs.values():
            if job.signals is not None:
                job.signals.pass_on(signum)

    def _in_thread(self, job: Job) -> None:
        slot = self._slots.take()
        alone = self._slots.count == 1

        def tell(line: str) -> None:
            self._board.tell(line, None if alone else job)

        assert self._common is not None
        shown = sys.stderr if self._common.as_json else sys.stdout
        manner = Manner(
            tell, shown if alone else None, job.signals, attended=False,
            lines=None if alone else lambda line: tell(line.removeprefix("runctl: ")), variables=slot.variables,
            berth=slot.berth,
        )  # fmt: skip
        try:
            if alone and job.overrides:
                tell(f"job {job.number}: {job.label}")
            self._turn.carry_out(job, manner)
        finally:
            job.launch = None  # with its plugins and its configuration
            self._slots.give(slot)

    # --- jobs that another launcher brings ---

    def carry_out_here(self, cfg: Any) -> Any:
        """One job from its configuration to its value, in a process of its launcher's.

        Raises:
            RunctlError: if it cannot be.
        """
        number = int(HydraConfig.get().job.num) + 1
        try:
            launch = self._ready(cfg)
            if isinstance(launch, int):
                self._notes.leave_code(number, launch)
                return None
            common = self._common = Common.of(launch, self._composer)
        except RunctlError as error:
            self._notes.leave_code(number, int(error.exit_code))
            raise
        job = self._job(launch.as_run(run_id_of(launch, common.book.generation)))
        job.number = number
        manner = Manner(output=sys.stderr if common.as_json else sys.stdout, attended=False)
        Turn(self._composer, common, lambda: [job]).carry_out(job, manner)
        job.launch = None
        self._notes.leave(number, common, job)
        return self.value(job)

    # --- the end ---

    def finish(self) -> int:
        """Show what came of all jobs.

        Returns:
            The exit code: of the first job for which it is not 0.
        """
        jobs = self._collected()
        if self._common is not None:
            if hasattr(self, "_pool"):  # other launchers hand this to processes of theirs, where no pool could go
                self._pool.shutdown()
                self._board.close()
                self._give_hosts_back()
            self._keep()
            with contextlib.suppress(OSError):  # its terminal was closed
                self._show(jobs, self._common)
        if self._stop is not None:
            return int(ExitCode.USER_INTERRUPT if self._stop is signal.SIGINT else ExitCode.STOPPED)
        return next((code for code in (*self._codes, *(job.exit_code for job in jobs)) if code != 0), 0)

    def _give_hosts_back(self) -> None:
        """End the hosts that have stayed, unless they are to wait for the next launch."""
        for berth in self._slots.berths:
            host = berth.host
            if self._keep_warm_s is None and host is not None and berth.give_up():
                try:
                    self._planner.clean_up(host)
                except PlatformError as error:
                    terminal.tell(f"{error}; it ends itself within {berth.keep_s / 60:.0f} minutes")
            warm.leave(self._root, berth, terminal.tell)

    def _collected(self) -> list[Job]:
        """All jobs, with those that others carried out."""
        for left in self._notes.read():
            if isinstance(left, int):
                self._codes.append(left)
            else:
                self._common, job = left
                self._jobs.setdefault(job.run_id, job)
        return list(self._jobs.values())

    def _keep(self) -> None:
        """Put down where jobs stand; that this fails ends nothing."""
        assert self._common is not None
        try:
            self._common.book.keep(self._jobs.values())
        except StorageError as error:
            terminal.tell(f"the record of this sweep is not whole: {error}")

    def _show(self, jobs: Sequence[Job], common: Common) -> None:
        if common.as_json:
            rows = [job.to_json() for job in table.ordered(jobs, common.settings.objectives)]
            terminal.show_json({"schema": 1, "sweep": common.book.name, "jobs": rows})
        table.show(jobs, common.settings.objectives)
        for line in remarks.on(jobs, common, stopped=self._stop is not None, coming=self.coming):
            terminal.tell(line)
        terminal.tell(f"{common.book.url}/sweep.csv")

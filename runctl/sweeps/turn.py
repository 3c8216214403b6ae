"""A job's turn: from its start to its end, whatever that is."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from hydra.core.hydra_config import HydraConfig

from runctl import bundle, carrying, identity
from runctl.carrying import Carried
from runctl.composed import Composed, Composer, Manner
from runctl.config import sweeps
from runctl.errors import ConfigError, ExitCode, LeaseHeld, RunctlError, Stopped
from runctl.outcome import Attempt
from runctl.rundir import RunDir
from runctl.spec import RunState
from runctl.sweeps import budget
from runctl.sweeps.book import Book
from runctl.sweeps.job import Job
from runctl.sweeps.objective import value_of

#: While another launch carries a job's run out, this one looks again so often.
_HELD_S = 1.0


@dataclass
class Common:
    """What the jobs of a sweep have in common, as the first of them says.

    Attributes:
        settings: `sweep.*`.
        book: what is remembered between two commands.
        code: the project's; see `bundle.code_digest`.
        as_json: whether the last line of standard output is for programs.
    """

    settings: sweeps.SweepSettings
    book: Book
    code: str
    as_json: bool

    @classmethod
    def of(cls, launch: Composed, composer: Composer) -> Common:
        """Look at the first job.

        Raises:
            RunctlError: for what cannot be.
        """
        if launch.cfg.detach:
            raise ConfigError(
                "detach=true with -m would start every job at once, and nobody would bound what they cost; leave it "
                "out, under nohup or tmux"
            )
        planner = composer.planner(launch.cfg)
        if planner.terms.rented:
            planner.check_ready(launch.spec)  # what one lacks all lack: said once, before any storage
        settings = sweeps.settings(launch.cfg, HydraConfig.get().sweeper.get("direction"))
        book = Book(launch.spec, fresh=settings.fresh)
        return cls(settings, book, bundle.code_digest(composer.project_dir), launch.cfg.output.value == "json")


class Turn:
    """Carries jobs out, each in whatever thread asks for it.

    Args:
        composer: makes platforms for them.
        common: what they have in common.
        jobs: all of them so far, for what they cost together.
    """

    def __init__(self, composer: Composer, common: Common, jobs: Callable[[], Collection[Job]]) -> None:
        self._composer = composer
        self._common = common
        self._jobs = jobs

    def carry_out(self, job: Job, manner: Manner) -> None:
        """One job to its end; what became of it stands in it."""
        launch, common = job.launch, self._common
        assert launch is not None
        rundir = RunDir(job.url)
        try:
            if (why := self._why_not(job)) is not None:
                job.state, job.exit_code, job.reason = "not started", *why
                return
            attempts = rundir.attempts()
            if self._has_ended(launch, attempts):
                job.done_before = True
                job.note(attempts)
            else:
                # What it came to before is not what it comes to now.
                job.state, job.code, job.values = "running", common.code, {}
                # What an earlier launcher left at work may end between this look and the next.
                manner = replace(manner, is_done=lambda now: self._has_ended(launch, now))
                carried = self._carried(job, launch, manner)
                if attempts := rundir.attempts():  # one that was left to itself may not have begun
                    job.note(attempts)
                job.exit_code = carried.exit_code
                job.reason = str((carried.outcome or {}).get("reason", job.reason))
            if common.settings.objectives:
                metrics = rundir.metrics()
                values = {one.metric: value_of(one, metrics) for one in common.settings.objectives}
                job.values |= {key: one for key, one in values.items() if one is not None or key not in job.values}
        except (KeyboardInterrupt, Stopped):
            job.state, job.exit_code, job.reason = "stopped", int(ExitCode.USER_INTERRUPT), "stopped before it began"
        except RunctlError as error:
            job.state, job.exit_code, job.reason = "failed", int(error.exit_code), str(error)
            manner.tell(str(error))
        except Exception as error:  # noqa: BLE001 (the other jobs go on)
            job.state, job.exit_code, job.reason = "failed", int(ExitCode.SOFTWARE), f"{type(error).__name__}: {error}"
            manner.tell(traceback.format_exc())

    def _why_not(self, job: Job) -> tuple[int, str] | None:
        """Why a job may not start any more: exit code and reason."""
        if job.signals is not None and job.signals.received:
            return int(ExitCode.USER_INTERRUPT), "the sweep was stopped"
        most, book = self._common.settings.max_usd, self._common.book
        if most is not None and (spent := budget.spent_usd(book, self._jobs())) >= most:
            return int(ExitCode.LIMIT), f"sweep.max_usd={most:g}: {spent:.2f} USD are spent"
        return None

    def _has_ended(self, launch: Composed, attempts: list[Attempt]) -> bool:
        """Whether an earlier command did all that there was to do."""
        resume = launch.spec.checkpoint.resume
        if not attempts or resume == "never" or resume.isdigit():
            return False
        failed = attempts[-1].state is RunState.FAILED and not self._common.settings.retry_failed
        return identity.finished(attempts) or failed

    def _carried(self, job: Job, launch: Composed, manner: Manner) -> Carried:
        """The run, as soon as nobody else carries it out."""
        cfg = launch.cfg
        if getattr(cfg.platform, "keep_on_failure", "") is None:
            # Nobody looks at one host of many; the next job wants another.
            cfg = replace(cfg, platform=replace(cfg.platform, keep_on_failure="0s"))
        platform = self._composer.platform(cfg, manner)
        said = False
        while True:
            try:
                return carrying.carry_out(launch, platform, manner)
            except LeaseHeld as error:
                if not said:
                    manner.tell(f"{error}; waiting for it")
                said = True
            if job.signals is not None and job.signals.received:
                raise Stopped("stopped while another launch carried it out")
            time.sleep(_HELD_S)

"""`hydra/launcher=runctl`: what a sweeper's jobs come through; the one under `-m` if no other is named.

Hydra's `run_job` works in one thread alone, so each job is only begun in it; then they are waited for, and the sweeper
is told what each came to. Its callbacks' `on_job_end` comes when a job has begun.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from runctl.config import schemas
from runctl.sweeps.composing import QuickLoader
from runctl.sweeps.sweep import Sweep
from runctl.variables import changed


class RunctlLauncher(Launcher):
    """Has a sweeper's jobs carried out, several at once.

    Attributes:
        sweep: to which they belong; Hydra makes the instance, so the class carries it.
    """

    sweep: ClassVar[Sweep]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra tells every launcher."""
        # The sweeper holds the same context, and has each job composed to see whether it can be.
        hydra_context.config_loader = cast(Any, QuickLoader(cast(Any, hydra_context.config_loader)))
        self._context = hydra_context
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Carry jobs out.

        Args:
            job_overrides: of each.
            initial_job_idx: the number of the first.

        Returns:
            What each came to, in their order.
        """
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        returned: list[JobReturn] = []
        # Hydra raises what goes wrong because of a variable of ours, which is none of what the jobs should get.
        with changed(HYDRA_FULL_ERROR=None), self.sweep.under_way():
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                self.sweep.coming = len(job_overrides) - len(returned)
                if self.sweep.stopped:
                    break
                self.sweep.coming -= 1
                returned.append(self._begun(number, overrides))
            else:
                self.sweep.coming = 0
        for one in returned:
            one.return_value = self.sweep.value(one.return_value)
        return returned

    def _begun(self, number: int, overrides: Sequence[str]) -> JobReturn:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.id = config.hydra.job.num = number
        begun = run_job(
            hydra_context=self._context,
            task_function=self.sweep.take,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if begun.status is JobStatus.FAILED:
            raise begun._return_value
        begun.cfg = begun.hydra_cfg = None  # a megabyte for each job, and nobody reads them
        return begun


def register(sweep: Sweep) -> None:
    """Make the launcher known to Hydra, with what its jobs belong to.

    The namespace is one of packages that may lie in several folders; an editable install maps none of ours into it, so
    that the module is made here.
    """
    namespace, _, rest = schemas.LAUNCHER.partition(".")
    place, _, name = rest.partition(".")
    module = sys.modules.setdefault(f"{namespace}.{place}", ModuleType(f"{namespace}.{place}"))
    try:
        parent = importlib.import_module(namespace)
    except ImportError:  # no plugin is installed
        parent = sys.modules.setdefault(namespace, ModuleType(namespace))
    setattr(parent, place, module)
    setattr(module, name, RunctlLauncher)
    RunctlLauncher.__module__, RunctlLauncher.sweep = module.__name__, sweep
    Plugins.instance().register(RunctlLauncher)

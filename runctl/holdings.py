"""The checkpoints that a run holds: in its run directory, and where `checkpoint.url` has them carried."""

from __future__ import annotations

import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl.checkpoint import manifest as manifests
from runctl.checkpoint.catalog import Catalog, kept
from runctl.checkpoint.manifest import Manifest
from runctl.checkpoint.progress import ProgressBar
from runctl.checkpoint.remote import RemoteCatalog
from runctl.checkpoint.transfer import Transfer, readable
from runctl.encoding import to_data
from runctl.errors import CheckpointCorrupt, CheckpointError, ConfigError
from runctl.rundir import RunDir, run_url
from runctl.spec import LaunchSpec, Retention
from runctl.storage import Store, open_store


@dataclass(frozen=True)
class Listed:
    """One checkpoint of a list.

    Attributes:
        trouble: what is wrong with it as far as sizes tell; empty if nothing is.
        places: where it lies.
    """

    step: int
    places: tuple[str, ...]
    size_bytes: int | None = None
    created_at: float | None = None
    attempt: int | None = None
    metrics: dict[str, float] | None = None
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """The public form."""
        data: dict[str, Any] = to_data(self)
        return data


class Holdings:
    """The checkpoints of one run.

    Args:
        stores: where they lie, the nearest first.
        retention: the run's own.
    """

    def __init__(self, stores: list[Store], retention: Retention) -> None:
        self._catalogs = [RemoteCatalog(store) for store in stores]
        self.retention = retention

    @classmethod
    def of(cls, rundir: RunDir) -> Holdings:
        """Those of a run directory.

        Raises:
            StorageError: if its spec cannot be read.
        """
        spec = rundir.read_spec()
        stores = [rundir.store]
        if (elsewhere := carried_to(spec)) is not None:
            stores = [*stores, elsewhere] if rundir.local_checkpoints() is not None else [elsewhere]
        return cls(stores, spec.checkpoint.retention)

    @property
    def place(self) -> str:
        """Where they lie, for people."""
        return " and ".join(catalog.place for catalog in self._catalogs)

    def steps(self) -> list[int]:
        """Steps of the finished ones, ascending.

        Raises:
            StorageError: if they cannot be listed.
        """
        return sorted({step for catalog in self._catalogs for step in catalog.steps()})

    def chosen(self, step: int | None) -> int:
        """The step that is meant: the newest if none is named.

        Raises:
            ConfigError: if there is none of that step, or none at all.
        """
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            have = ", ".join(map(str, steps)) or "none"
            which = "" if step is None else f" of step {step}"
            raise ConfigError(f"{self.place}: there is no checkpoint{which}; there are {have}")
        return steps[-1] if step is None else step

    def listed(self) -> list[Listed]:
        """All of them; sizes are compared, bytes are not looked at.

        Raises:
            StorageError: if they cannot be listed.
        """
        places: dict[int, list[RemoteCatalog]] = {}
        for catalog in self._catalogs:
            for step in catalog.steps():
                places.setdefault(step, []).append(catalog)
        return [self._looked_at(step, places[step]) for step in sorted(places)]

    def manifest(self, step: int) -> tuple[str, Manifest]:
        """Where a checkpoint lies, and its manifest.

        Raises:
            CheckpointCorrupt: if sizes differ from what it says.
        """
        catalog = self._holder(step)
        return catalog.url(step), catalog.manifest(step)

    def trouble(self, step: int) -> str:
        """What is wrong with a checkpoint, every byte of every copy looked at; empty if nothing is.

        Raises:
            StorageError: if it cannot be read.
        """
        holders = [catalog for catalog in self._catalogs if step in catalog.steps()]
        if not holders:  # nothing was looked at, and so nothing is known to be whole
            return self._none_of(step)
        told = []
        for catalog in holders:
            try:
                if "://" not in catalog.place:
                    manifests.verify(Path(catalog.url(step)))
                else:
                    with tempfile.TemporaryDirectory(prefix="runctl-verify-") as aside:
                        self._fetch(catalog, step, Path(aside), "verifying")
            except CheckpointCorrupt as error:
                told.append(str(error))
        return "; ".join(told)

    def pull(self, step: int, to: Path) -> Path:
        """Bring a checkpoint to a folder of this machine, verified; what an earlier try has brought whole stays.

        Returns:
            Where it lies then.

        Raises:
            CheckpointCorrupt: if its bytes are not those that were written.
            CheckpointError: if the folder cannot be written, or holds another checkpoint of that step.
            StorageError: if the storage cannot be read.
        """
        final = to / manifests.folder_name(step)
        catalog = self._holder(step)
        aside = to / f".tmp-pulled-{final.name}"
        try:
            if (final / manifests.NAME).exists():
                there, wanted = manifests.verify(final), catalog.manifest(step)
                if there != wanted:  # another run's, or what this one did before it was resumed
                    raise CheckpointError(
                        f"{final} is another checkpoint, of attempt {there.attempt} of {there.run_id}; "
                        "choose another folder with --to"
                    )
                return final
            aside.mkdir(parents=True, exist_ok=True)
            self._fetch(catalog, step, aside, "bringing")
            shutil.rmtree(final, ignore_errors=True)  # an unfinished folder of that name
            aside.rename(final)
        except OSError as error:
            raise CheckpointError(f"{final}: cannot be written ({error.strerror})") from error
        return final

    def prune(self, retention: Retention, *, dry_run: bool) -> tuple[list[int], int]:
        """Remove what a retention does not keep, where the two newest are whole; returns the steps, and bytes freed.

        Raises:
            CheckpointCorrupt: if one of the two newest is not: then nothing is removed.
            StorageError: if they cannot be listed or removed.
        """
        gone: set[int] = set()
        freed = 0
        for catalog in self._catalogs:
            steps = catalog.steps()
            said = {step: catalog.manifest(step) for step in steps[-2:]}
            for step in steps[:-2]:
                try:
                    said[step] = catalog.manifest(step)
                except CheckpointCorrupt:  # of no use to anybody
                    continue
            if "://" not in catalog.place:
                for step in steps[-2:]:
                    manifests.verify(Path(catalog.url(step)))
            keep = kept(sorted(said), retention, lambda step, said=said: said[step].metrics)  # type: ignore[misc]
            removed = [step for step in said if step not in keep]
            freed += sum(said[step].size_bytes for step in removed)
            gone |= set(removed)
            # On this machine a checkpoint is a folder, which goes with it.
            here = Catalog(Path(catalog.place)) if "://" not in catalog.place else catalog
            for step in removed if not dry_run else ():
                here.remove(step)
        return sorted(gone), freed

    def _holder(self, step: int) -> RemoteCatalog:
        for catalog in self._catalogs:
            if step in catalog.steps():
                return catalog
        raise CheckpointError(self._none_of(step))

    def _none_of(self, step: int) -> str:
        return f"{self.place}: there is no checkpoint of step {step}"

    def _looked_at(self, step: int, where: list[RemoteCatalog]) -> Listed:
        places = tuple(catalog.url(step) for catalog in where)
        troubles, manifest = [], None
        for catalog in where:
            try:
                manifest = catalog.manifest(step)
            except CheckpointCorrupt as error:
                troubles.append(str(error))
        if manifest is None:
            return Listed(step, places, trouble="; ".join(troubles))
        return Listed(
            step, places, manifest.size_bytes, manifest.created_at, manifest.attempt, manifest.metrics,
            "; ".join(troubles),
        )  # fmt: skip

    @staticmethod
    def _fetch(catalog: RemoteCatalog, step: int, aside: Path, verb: str) -> None:
        """Copy it into a folder, with a bar for whoever looks on."""
        bar, transfer, stop = ProgressBar(attached=True), Transfer(), threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                catalog.fetch(step, aside, stop, lambda one: transfer.begin(step, one.size_bytes), transfer.moved)
            except BaseException as error:  # noqa: BLE001 (raised below; else what was not read would count as whole)
                failed.append(error)

        thread = threading.Thread(target=work, name="runctl-fetch", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.05)
                bar.show(verb, transfer)
        finally:
            stop.set()
            bar.clear()
            thread.join()
        if failed:
            raise failed[0]


def check_resumed(spec: LaunchSpec, rundir: RunDir) -> None:
    """See that a launch finds the checkpoint without which it is not to begin.

    Raises:
        ConfigError: if there is none of the step that it names, or none at all where it requires one.
        StorageError: if they cannot be listed.
    """
    resume = spec.checkpoint.resume
    # What another run's checkpoint would have to begin from is looked at on the host, which brings it.
    if not resume.isdigit() and (resume != "require" or spec.checkpoint.origin is not None):
        return
    elsewhere = carried_to(spec)
    stores = [rundir.store] if elsewhere is None else [rundir.store, elsewhere]
    try:
        Holdings(stores, spec.checkpoint.retention).chosen(int(resume) if resume.isdigit() else None)
    except ConfigError as error:
        raise ConfigError(f"checkpoint.resume={resume}: {error}") from error


def carried_to(spec: LaunchSpec) -> Store | None:
    """Where `checkpoint.url` has a run's checkpoints carried; None where it names nothing."""
    if spec.checkpoint.url is None:
        return None
    return open_store(run_url(spec.checkpoint.url, spec.run.id), "checkpoint.url=…")


def size(listed: Listed) -> str:
    """The size of a listed one for people; nothing where it is not known."""
    return "" if listed.size_bytes is None else readable(listed.size_bytes)

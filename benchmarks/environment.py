"""Seconds until the ranks' environment is there: the first attempt makes it, the second takes it from the cache.

    python benchmarks/environment.py [LINE…]   of requirements: by default scikit-learn, pandas, matplotlib, …
    RUNCTL_BENCH_PACKING=1 …                     also what the ways of packing cost, and what they save

Each attempt is a host of its own in a folder of its own, with an empty cache of uv's; packages come from PyPI or
wherever UV_DEFAULT_INDEX, UV_FIND_LINKS, … say. The cache lies on this disk, or below the URL in RUNCTL_BENCH_ROOT.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from runctl.agent.environment import archive, interpreters
from runctl.agent.environment.ready import RanksEnvironment
from runctl.agent.order import Order
from runctl.environment import Environment
from runctl.spec import LaunchSpec, Program, RunIdentity

PACKAGES = ("scikit-learn", "pandas", "matplotlib", "transformers")


def main(packages: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="runctl-bench-") as name:
        folder = Path(name)
        (folder / "requirements.txt").write_text("\n".join(packages) + "\n")
        digest = hashlib.sha256(repr(packages).encode()).hexdigest()
        names_torch = any(one.startswith("torch") for one in packages)
        wanted = Environment("uv", ("requirements.txt",), digest, names_torch=names_torch)
        root = os.environ.get("RUNCTL_BENCH_ROOT", str(folder / "runs"))
        spec = LaunchSpec(RunIdentity("bench", "bench", root), Program("train.py", None), environment=wanted)
        # What the image has would be taken as it is: this one has nothing.
        interpreters._PLACES = ()
        os.environ["RUNCTL_IMAGE_PYTHON"] = str(Path(sys.base_prefix, "bin", "python3"))
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        sys.executable = os.environ["RUNCTL_IMAGE_PYTHON"]
        rows = []
        for number in (1, 2):
            host = folder / f"host-{number}"
            os.environ["RUNCTL_HOST_ROOT"] = str(host)
            order = Order(f"{root}/bench", number, str(folder), "aws", attached=False)
            environment = RanksEnvironment(order, spec, lambda line: print(f"runctl: {line}", file=sys.stderr))
            began = time.monotonic()
            ready = environment.prepare({}, lambda: None, lambda: False)
            took_s = time.monotonic() - began
            assert ready is not None
            rows.append((number, ready.source, took_s))
            if number == 1:
                made = next(path for path in (host / "environments").iterdir() if (path / "venv").is_dir())
                sizes = packings(made, folder) if "RUNCTL_BENCH_PACKING" in os.environ else []
                environment.keep()
                while environment.keeping():
                    time.sleep(0.1)
        print("attempt  source  seconds")
        for number, source, took_s in rows:
            print(f"{number:<8} {source:<7} {took_s:7.2f}")
        if sizes:
            print("\npacking      seconds  unpacking        MB")
        for word, packed_s, unpacked_s, size in sizes:
            print(f"{word:<12} {packed_s:7.2f}  {unpacked_s:9.2f}  {size / 1e6:8.1f}")


def packings(made: Path, folder: Path) -> list[tuple[str, float, float, int]]:
    """What packing an environment costs in each way that the standard library has, and what it saves."""
    names = archive.files_of(made)
    found = []
    for word, options in (
        ("gzip 1", {"mode": "w:gz", "compresslevel": 1}),
        ("gzip 6", {"mode": "w:gz", "compresslevel": 6}),
        ("none", {"mode": "w"}),
        ("xz 0", {"mode": "w:xz", "preset": 0}),
    ):
        packed, unpacked = folder / "packed", folder / "unpacked"
        began = time.monotonic()
        with tarfile.open(packed, **options) as tar:
            for name in names:
                tar.add(made / name, name, recursive=False)
        packed_s = time.monotonic() - began
        unpacked.mkdir()
        began = time.monotonic()
        os.spawnlp(os.P_WAIT, "tar", "tar", "-xf", str(packed), "-C", str(unpacked))
        found.append((word, packed_s, time.monotonic() - began, packed.stat().st_size))
        shutil.rmtree(unpacked)
    return found


if __name__ == "__main__":
    main(sys.argv[1:] or list(PACKAGES))

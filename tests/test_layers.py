"""The architecture, read from the imports: who may import whom, and where the heavy libraries may appear."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "runctl"

#: Layers from the bottom, each in its own order: a module imports what stands before it. Layer 2 is special:
#: its parts start each other as processes and import none of each other.
LAYER_0 = [
    "conf",
    "errors",
    "encoding",
    "digests",
    "scaling",
    "arguments",
    "cuda",
    "environment",
    "spec",
    "outcome",
    "durations",
    "command",
    "cost",
    "stalls",
    "variables",
    "milestones",
]
LAYER_1 = [
    "streams",
    "processes",
    "storage",
    "lease",
    "rundir",
    "saves",
    "nodelogs",
    "extension",
    "hostdir",
    "metrics",
    "agreement",
    "checkpoint",
    "hosts",
    "bundle",
    "hooks",
    "config",
    "registry",
    "standing",
    "bills",
    "holdings",
    "copying",
    "plugins",
]
LAYER_2 = ["agent", "training", "platforms"]
LAYER_3 = [
    "identity",
    "asking",
    "following",
    "buying",
    "signals",
    "stops",
    "unrecorded",
    "supervisor",
    "report",
    "leftovers",
    "drill",
    "terminal",
    "warm",
    "composed",
    "carrying",
    "sweeps",
]
LAYER_4 = ["usage", "smoke", "launch", "resuming", "checkup", "beginnings", "cli"]
ORDER = [*LAYER_0, *LAYER_1, *LAYER_2, *LAYER_3, *LAYER_4]

#: Where each library may be imported at all.
HOME = {
    "hydra": {"runctl/config", "runctl/composed.py", "runctl/sweeps", "runctl/launch.py"},
    "omegaconf": {
        "runctl/config",
        "runctl/sweeps/composing.py",
        "runctl/sweeps/launcher.py",
        "runctl/launch.py",
        "runctl/resuming.py",
    },
    "pluggy": {"runctl/hooks.py"},
    "torch": {"runctl/training", "runctl/agent/torchrun.py"},
    "boto3": {"runctl/platforms/aws", "runctl/hosts/aws", "runctl/drill", "runctl/platforms/runpod/credentials.py"},
    "botocore": {
        "runctl/platforms/aws",
        "runctl/hosts/aws",
        "runctl/storage/s3.py",
        "runctl/drill",
        "runctl/platforms/runpod/credentials.py",
    },
    "runpod": {"runctl/platforms/runpod"},
    "paramiko": {"runctl/platforms/runpod/ssh.py"},
    "cryptography": {"runctl/platforms/runpod/keys.py", "runctl/drill/runpod"},
    "fsspec": {"runctl/storage"},
    "moto": {"runctl/drill"},
    "werkzeug": {"runctl/drill"},
    "graphql": {"runctl/drill/runpod"},
    "typer": {"runctl/cli"},
    "apprise": {"runctl/plugins/notify.py"},
    "plotly": {"runctl/report", "runctl/cli/report.py"},
    "rich": {
        "runctl/terminal.py",
        "runctl/checkpoint/progress.py",
        "runctl/cli/dashboard.py",
        "runctl/cli/table.py",
        "runctl/cli/monitor.py",
        "runctl/sweeps/board.py",
        "runctl/sweeps/table.py",
    },
}
SHARED_BY_PLATFORMS = (
    "base",
    "planned",
    "parcel",
    "local_data",
    "watching",
    "rented",
    "asked",
    "renting",
    "hosts",
    "holdings",
)
STANDARD_ONLY = {*LAYER_0, "hostdir", "agreement"}


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] not in ("__init__.py",):
            yield path, relative.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere in it, `TYPE_CHECKING` blocks left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "runctl" else [module]


def test_every_module_has_its_place_in_the_layers() -> None:
    assert {part for _, part in modules()} | {"conf"} == set(ORDER)


@pytest.mark.parametrize("path", [path for path, _ in modules()], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        if not name.startswith("runctl.") or name == "runctl.__version__":
            continue
        other = name.split(".")[1]
        if other == part:
            continue
        assert ORDER.index(other) < ORDER.index(part), f"{part} imports {other}, which stands above it"
        assert not (part in LAYER_2 and other in LAYER_2), f"{part} imports {other}: they are separate processes"


def test_no_platform_imports_another() -> None:
    for path in (PACKAGE / "platforms").rglob("*.py"):
        own = path.relative_to(PACKAGE / "platforms").parts[0].removesuffix(".py")
        for name in imports(path):
            parts = name.split(".")
            if parts[:2] == ["runctl", "platforms"] and len(parts) > 2 and own != "registry":
                assert parts[2] in (*SHARED_BY_PLATFORMS, own), f"{path}: imports {name}"


def test_heavy_libraries_stay_at_home() -> None:
    for path, _ in modules():
        where = str(path.relative_to(ROOT))
        for name in imports(path):
            allowed = HOME.get(name.split(".")[0])
            assert allowed is None or any(where.startswith(home) for home in allowed), f"{where} imports {name}"


def test_the_lowest_layer_needs_the_standard_library_alone() -> None:
    import sys

    for path, part in modules():
        if part in STANDARD_ONLY:
            for name in imports(path):
                top = name.split(".")[0]
                assert top == "runctl" or top in sys.stdlib_module_names, f"{path} imports {name}"


def test_modules_stay_short() -> None:
    for path, _ in modules():
        lines = len(path.read_text().splitlines())
        assert lines <= 350, f"{path}: {lines} lines; look for the second noun in it"

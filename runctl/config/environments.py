"""Which Python environment the ranks get: decided by the files of the project, without building anything."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterator
from pathlib import Path

from runctl.config.schemas import LaunchConfig
from runctl.environment import Environment
from runctl.errors import ConfigError
from runctl.spec import Program

LOCK, REQUIREMENTS, PROJECT = "uv.lock", "requirements.txt", "pyproject.toml"
CONDA = ("environment.yml", "environment.yaml")
#: What a script that trains with torch imports.
_IMPORTS_TORCH = re.compile(
    rb"^\s*(?:import\s+(?:[\w.]+\s*,\s*)*|from\s+)(?:torch\w*|lightning|pytorch_lightning|transformers|accelerate)\b",
    re.M,
)
_INCLUDED = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", re.M)
_TORCH = {
    LOCK: re.compile(r'^name = "torch"\nversion = "([^"]+)"', re.M),
    REQUIREMENTS: re.compile(r"^\s*torch(?![-_.\w])[^=\n]*(?:==\s*([\w.+]+))?", re.M | re.I),
    PROJECT: re.compile(r"""["']torch(?![-_.\w])[^="'\n]*(?:==\s*([\w.+]+))?""", re.I),
    CONDA[0]: re.compile(r"^\s*-\s*[\"']?(?:[\w-]+::)?(?:pytorch|torch)(?![-_.\w])[\s=]*([\w.+]*)", re.M | re.I),
}
#: [registry[:port]/]path[:tag][@digest] (github.com/distribution/reference), loosely: what docker could take for an
#: option, and what a shell could take apart, is none.
_IMAGE = re.compile(r"[A-Za-z0-9][\w.-]*(?::\d+)?(?:/[\w.-]+)*(?::[\w.-]+)?(?:@\w+:[0-9a-f]+)?", re.ASCII)
_RUNTIME = re.compile(r'nvidia-cuda-runtime(?:-cu\d+)?(?:"\nversion = "|==)(\d+\.\d+)')


def environment(cfg: LaunchConfig, program: Program, workdir: Path, project_dir: Path, *, asked: bool) -> Environment:
    """`python_env`, with what the project has for it.

    Args:
        cfg: the composed configuration.
        program: what will run.
        workdir: where the user stands; the nearest files count.
        project_dir: up to where they are looked for.
        asked: whether `python_env` was given by the user and not by the platform's own file.

    Raises:
        ConfigError: for a kind whose file is missing, or its image, and next to `platform.python`.
    """
    wanted = cfg.python_env.value
    given = getattr(cfg.platform, "python", None)
    if given is not None:
        if asked and wanted != "system":
            raise ConfigError(
                f"platform.python={given} and python_env={wanted}: the first names an interpreter that is there, the "
                f"second {'has one in an image' if wanted == 'docker' else 'makes one'}; give one of them"
            )
        return Environment()
    needs_torch = cfg.trainer.kind.value == "ddp" or _imports_torch(program, workdir)
    if wanted == "docker":
        return Environment("docker", needs_torch=needs_torch, image=_image(cfg.docker.image))
    if wanted == "system":
        return Environment(needs_torch=needs_torch)
    found = next((one for one in _found(workdir, project_dir) if wanted in ("auto", one[0])), None)
    torch = _own_torch() if needs_torch else None
    if found is None and wanted == "auto":
        return Environment(needs_torch=needs_torch, torch=torch, python=_wanted_python(workdir, project_dir, None))
    if found is None:
        files = f"{LOCK}, {REQUIREMENTS} or a {PROJECT} with [project]" if wanted == "uv" else CONDA[0]
        raise ConfigError(
            f"python_env={wanted}: there is no {files} from {workdir} up to {project_dir}; add one "
            f"({'uv lock' if wanted == 'uv' else 'conda env export --from-history'} writes it), or use python_env=auto"
        )
    kind, paths = found
    texts = [path.read_text(errors="replace") for path in paths]
    versions = [match for path, text in zip(paths, texts, strict=True) for match in _torches(path, text)]
    return Environment(
        kind=kind,
        files=tuple(os.path.relpath(path, project_dir) for path in paths),
        digest=_digest(paths, project_dir),
        python=None if kind == "conda" else _wanted_python(paths[0].parent, project_dir, texts[0]),
        names_torch=bool(versions),
        needs_torch=needs_torch,
        torch=torch,
        cuda=_cuda(versions, "\n".join(texts)),
    )


def _image(named: str | None) -> str:
    example = "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime"
    if named is None:
        raise ConfigError(f"python_env=docker: name the image, such as docker.image={example}")
    if not _IMAGE.fullmatch(named):
        raise ConfigError(f"docker.image={named}: no image is called so; such as {example}")
    return named


def _found(workdir: Path, project_dir: Path) -> Iterator[tuple[str, list[Path]]]:
    """What an environment can be made from, the nearest first: its kind, and its files."""
    folders = [workdir, *workdir.parents]
    folders = folders[: folders.index(project_dir) + 1] if project_dir in folders else [workdir]
    lock = next((folder / LOCK for folder in folders if (folder / LOCK).is_file()), None)
    for folder in folders:
        project = folder / PROJECT
        text = project.read_text(errors="replace") if project.is_file() else ""
        if lock is not None and (folder == lock.parent or text):
            # A member of a workspace has its lock further up.
            yield "uv", [lock, *([project] if text else [])]
        if (folder / REQUIREMENTS).is_file():
            yield "uv", [*_with_included(folder / REQUIREMENTS)]
        if re.search(r"^\[project\]", text, re.M):
            yield "uv", [project]
        for name in CONDA:
            if (folder / name).is_file():
                yield "conda", [folder / name]


def _with_included(path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """A file of requirements, and those that it includes."""
    if path in seen or not path.is_file():
        return
    yield path
    for name in _INCLUDED.findall(path.read_text(errors="replace")):
        if "://" not in name:
            yield from _with_included(path.parent / name, seen | {path})


def _imports_torch(program: Program, workdir: Path) -> bool:
    """Whether the script trains with torch; of a module nothing is known, and most do."""
    return program.script is None or bool(_IMPORTS_TORCH.search(Path(workdir, program.script).read_bytes()))


def _own_torch() -> str | None:
    """The launcher's torch, without the word for what it was built for; its metadata alone are read."""
    try:
        return importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _wanted_python(folder: Path, project_dir: Path, text: str | None) -> str | None:
    """`.python-version` if there is one, else `requires-python` of the lock or the project."""
    around = [folder, *folder.parents]
    around = around[: around.index(project_dir) + 1] if project_dir in around else [folder]
    for one in around:
        if (one / ".python-version").is_file():
            found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", (one / ".python-version").read_text())
            if found:
                return f"=={found[0]}" if found[3] else f"=={found[0]}.*"
    project = folder / PROJECT
    texts = [text or "", project.read_text(errors="replace") if project.is_file() else ""]
    wanted = next(filter(None, (re.search(r'^requires-python\s*=\s*["\']([^"\']+)', one, re.M) for one in texts)), None)
    return wanted[1].replace(" ", "") if wanted else None


def _torches(path: Path, text: str) -> list[str]:
    """The versions in which a file asks for torch, empty where it leaves them open."""
    pattern = _TORCH.get(path.name) or _TORCH[CONDA[0] if path.name in CONDA else REQUIREMENTS]
    return [found[1] or "" for found in pattern.finditer(text)]


def _cuda(versions: list[str], text: str) -> str | None:
    """What torch was built for: the runtime that comes with it, or the word behind its version."""
    runtime = _RUNTIME.search(text)
    if runtime:
        return runtime[1]
    words = [re.search(r"\+cu(\d+)(\d)$", version) for version in versions]
    return next((f"{word[1]}.{word[2]}" for word in words if word), None)


def _digest(paths: list[Path], project_dir: Path) -> str:
    told = hashlib.sha256()
    for path in paths:
        told.update(f"{os.path.relpath(path, project_dir)}\0{path.stat().st_size}\0".encode())
        told.update(path.read_bytes())
    return told.hexdigest()

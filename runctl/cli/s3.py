"""`runctl s3`: files to and from object storage; any fsspec URL will do, and a path of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from runctl.cli import table
from runctl.errors import ConfigError

if TYPE_CHECKING:
    from runctl.copying import Copying, Planned

app = typer.Typer(
    no_args_is_help=True,
    help="Files to and from object storage (s3://, gs://, any fsspec URL): in parallel, verified, resumed.",
)

_RECURSIVE = typer.Option(False, "--recursive", "-r", help="A folder, with all that is in it.")
_DRY_RUN = typer.Option(False, "--dry-run", help="Say what would be done; do nothing.")
_JSON = typer.Option(False, "--json", help="For programs.")


@app.command()
def upload(
    path: str = typer.Argument(..., metavar="PATH", help="A file or folder of this machine."),
    url: str = typer.Argument(..., metavar="URL", help="Where to; with a slash at its end, into it."),
    recursive: bool = _RECURSIVE,
    dry_run: bool = _DRY_RUN,
    as_json: bool = _JSON,
) -> None:
    """Copy files to object storage; what is there already with the same bytes is not sent again."""
    if "://" in path or "://" not in url:
        raise ConfigError(f"upload {path} {url}: from a path of this machine to a URL; download brings, sync does both")
    _copy(path, url, "upload", recursive=recursive, dry_run=dry_run, as_json=as_json)


@app.command()
def download(
    url: str = typer.Argument(..., metavar="URL", help="A file or folder in object storage."),
    path: str = typer.Argument(".", metavar="PATH", help="Where to; with a slash at its end, into it."),
    recursive: bool = _RECURSIVE,
    dry_run: bool = _DRY_RUN,
    as_json: bool = _JSON,
) -> None:
    """Copy files to this machine; what is there already with the same bytes is not brought again."""
    if "://" in path or "://" not in url:
        raise ConfigError(f"download {url} {path}: from a URL to a path of this machine; upload sends, sync does both")
    _copy(url, path, "download", recursive=recursive, dry_run=dry_run, as_json=as_json)


@app.command()
def sync(
    source: str = typer.Argument(..., metavar="SOURCE", help="A folder: a path or a URL."),
    target: str = typer.Argument(..., metavar="TARGET", help="Another."),
    delete: bool = typer.Option(False, "--delete", help="Remove from TARGET what SOURCE does not have."),
    dry_run: bool = _DRY_RUN,
    as_json: bool = _JSON,
) -> None:
    """Make one folder like another, copying only what differs.

    Files differ if their sizes do, or the hash that the storage tells (S3's ETag); where it tells none, if the
    target's is older.
    """
    _copy(source, target, "copy", recursive=True, delete=delete, dry_run=dry_run, as_json=as_json)


@app.command("list")
def list_(
    url: str = typer.Argument(..., metavar="URL", help="A folder or a bucket; a path will do as well."),
    recursive: bool = typer.Option(False, "--recursive", "-r", help="Every file, and not each folder's sum."),
    as_json: bool = _JSON,
) -> None:
    """List files and folders, with their sizes."""
    from runctl.checkpoint.transfer import readable
    from runctl.copying import Place

    place = Place(url)
    sizes: dict[str, tuple[int, int]] = {}
    for path, stamp in place.files().items():
        folder, slash, _ = path.partition("/")
        name = path or place.name if recursive else (folder + slash) or place.name
        files, size = sizes.get(name, (0, 0))
        sizes[name] = files + 1, size + stamp.size_bytes
    if as_json:
        table.show_json([{"name": name, "files": n, "size_bytes": size} for name, (n, size) in sorted(sizes.items())])
    elif not sizes:
        typer.echo(f"{url}: there is nothing")
    else:
        rows = [
            [readable(size), str(n) if name.endswith("/") else "", name] for name, (n, size) in sorted(sizes.items())
        ]
        table.show_table(["SIZE", "FILES", "NAME"], rows, shrink=(), right=(0, 1))


@app.command()
def rm(
    url: str = typer.Argument(..., metavar="URL", help="A file, or with --recursive a folder."),
    recursive: bool = _RECURSIVE,
    force: bool = typer.Option(False, "--force", "-f", help="Ask no question."),
    dry_run: bool = _DRY_RUN,
    as_json: bool = _JSON,
) -> None:
    """Remove files for good."""
    from runctl.checkpoint.transfer import readable
    from runctl.copying import Place, remove

    place = Place(url)
    found = place.files()
    if not found:
        raise ConfigError(f"{url}: there is nothing")
    if "" not in found and not recursive:
        raise ConfigError(f"{url} is a folder of {len(found)} files; --recursive removes all of them")
    doomed = sorted(found) if recursive else [""]
    size = sum(found[path].size_bytes for path in doomed)
    told = f"{_files(len(doomed))} ({readable(size)}) of {url}"
    if not dry_run:
        if recursive and not force and not typer.confirm(f"Remove {told} for good?"):
            raise typer.Exit(1)
        remove(place, doomed)
    if as_json:
        table.show_json({"removed": [place.shown(path) for path in doomed], "size_bytes": size, "dry_run": dry_run})
        return
    if dry_run:
        typer.echo("".join(f"remove {place.shown(path)}\n" for path in doomed), nl=False)
    typer.echo(f"{'would be removed' if dry_run else 'removed'}: {told}")


def _copy(
    source: str, target: str, verb: str, *, recursive: bool, delete: bool = False, dry_run: bool, as_json: bool
) -> None:
    from runctl.copying import Copying, remove

    copying = Copying(source, target, recursive=recursive, verb=verb.rstrip("e") + "ing")
    planned = copying.plan()
    gone = planned.gone if delete else ()
    if not dry_run:
        copying.carry_out(planned)
        remove(copying.target, gone)
    if as_json:
        table.show_json(
            {"copied": [one.target for one in planned.copies], "size_bytes": planned.size_bytes,
             "same": planned.same, "removed": list(gone), "dry_run": dry_run}
        )  # fmt: skip
        return
    _tell(copying, planned, verb, gone, dry_run=dry_run)


def _tell(copying: Copying, planned: Planned, verb: str, gone: tuple[str, ...], *, dry_run: bool) -> None:
    from runctl.checkpoint.transfer import readable

    if dry_run:
        for one in planned.copies:
            typer.echo(
                f"{verb} {copying.source.store.url}/{one.source} to {copying.target.store.url}/{one.target}"
                f" ({readable(one.stamp.size_bytes)})"
            )
        for name in gone:
            typer.echo(f"remove {copying.target.shown(name)}")
    would = "would be " * dry_run
    done = {"upload": "sent", "download": "brought", "copy": "copied"}[verb]
    parts = [f"{_files(len(planned.copies))} {would}{done}, {readable(planned.size_bytes)}"]
    if planned.same:
        parts.append(f"{_files(planned.same)} the same already")
    if gone:
        parts.append(f"{_files(len(gone))} {would}removed")
    typer.echo("; ".join(parts))


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"

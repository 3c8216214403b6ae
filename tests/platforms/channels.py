"""A conda channel on disk, with packages made on the spot: a Python that is this machine's, and one pure package."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

#: As conda builds: longer than any prefix, so that there is room for one.
PLACEHOLDER = "/placehold" * 20
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"lib/python{MINOR}/site-packages"


class Channel:
    """A folder that conda and rattler take for a channel.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: dict[str, Any] = {}
        self.url = folder.as_uri()
        home = Path(sys.base_prefix, "bin")
        self.add(
            "python", MINOR + ".0",
            {
                "pyvenv.cfg": f"home = {home}\ninclude-system-site-packages = false\nversion = {MINOR}.0\n".encode(),
                f"{SITE}/README": b"",
                # What a compiled program holds of its prefix: a string of fixed length, with zeros behind it.
                "lib/where.bin": b"\x7fELF" + f"{PLACEHOLDER}/lib:{PLACEHOLDER}/share".encode() + b"\0END",
            },
            links={"bin/python": str(home / f"python{MINOR}")},
            binary=("lib/where.bin",),
        )  # fmt: skip

    def add(
        self, name: str, version: str, files: dict[str, bytes], *, links: dict[str, str] | None = None,
        depends: tuple[str, ...] = (), binary: tuple[str, ...] = (), text: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Add a package, and write the channel's index anew."""
        subdir = "linux-64"
        index = {
            "name": name, "version": version, "build": "0", "build_number": 0, "depends": list(depends),
            "subdir": subdir, "arch": "x86_64", "platform": "linux",
        }  # fmt: skip
        paths = [
            {
                "_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(data).hexdigest(),
                "size_in_bytes": len(data),
                **({"prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if path in binary else "text"}
                   if path in (*binary, *text) else {}),
            }
            for path, data in files.items()
        ]  # fmt: skip
        paths += [
            {"_path": path, "path_type": "softlink", "sha256": hashlib.sha256(b"").hexdigest(), "size_in_bytes": 0}
            for path in links or {}
        ]
        info = {
            "info/index.json": json.dumps(index).encode(),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
            "info/files": "\n".join([*files, *(links or {})]).encode(),
        }
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:bz2") as tar:
            for path, data in {**info, **files}.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o755
                tar.addfile(member, io.BytesIO(data))
            for path, target in (links or {}).items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
        data = packed.getvalue()
        file = f"{name}-{version}-0.tar.bz2"
        self._told[file] = {
            **index, "md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data), "timestamp": 1_700_000_000_000,
        }  # fmt: skip
        for place, packages in ((subdir, self._told), ("noarch", {})):
            (self._folder / place).mkdir(parents=True, exist_ok=True)
            told = {"info": {"subdir": place}, "packages": packages, "packages.conda": {}, "repodata_version": 1}
            (self._folder / place / "repodata.json").write_text(json.dumps(told))
        (self._folder / subdir / file).write_bytes(data)

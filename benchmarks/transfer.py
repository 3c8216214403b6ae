"""How a checkpoint travels to object storage and back, against other clients of the same server.

    python benchmarks/transfer.py [SIZE_GB, such as 1 or 4] [ROUNDS] [CLIENTS, such as runctl,s5cmd]

Every client is a process that carries one file to `s3server.py` on loopback, which keeps it on disk, and a process
that brings it back; the clients take turns. Wall time, the client's processor time (user and system) and its peak
memory are the whole process's, its start included. runctl's process does what it does in a run: it hashes the
checkpoint, carries it, publishes it; and it finds it, brings it back and hashes it again. `raw` is one connection
that does nothing but send or receive, to see what the server can do. The goal: at most 1.1 times the fastest other
client's time, below 256 MB.

Where the clients meet is on disk: on a virtual machine the kernel may get the memory of its page cache anew with every
other file, which costs seconds. TMPDIR=/dev/shm keeps out what the disk adds.

`make bench` has made .venv/peers with the clients that are no part of runctl's environment; what is missing is said.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(sys.prefix) / "peers"
BUCKET = "bench"
STEP = 1


@dataclass(frozen=True)
class Run:
    """One process: wall time and processor time in seconds, peak memory in bytes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


# --- the clients, each in a process of its own: `python transfer.py NAME up|down PATH` ---


def raw(way: str, path: Path) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc)
    connection.connect()
    connection.request("GET" if way == "down" else "HEAD", f"/{BUCKET}/raw" if way == "down" else f"/{BUCKET}")
    answer = connection.getresponse()
    if way == "down":
        buffer = memoryview(bytearray(1 << 20))
        with path.open("wb", buffering=0) as target:
            while count := answer.readinto(buffer):
                target.write(buffer[:count])
        return
    answer.read()
    head = f"PUT /{BUCKET}/raw HTTP/1.1\r\nContent-Length: {path.stat().st_size}\r\n\r\n"
    connection.sock.sendall(head.encode())
    with path.open("rb") as source:
        connection.sock.sendfile(source)
    assert connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 200")


def runctl(way: str, path: Path) -> None:
    import threading

    from runctl.checkpoint.catalog import Catalog
    from runctl.checkpoint.remote import RemoteCatalog
    from runctl.checkpoint.restore import Restore
    from runctl.checkpoint.upload import Upload
    from runctl.spec import Retention
    from runctl.storage import open_store

    catalog, remote = Catalog(path.parent.parent), RemoteCatalog(open_store(f"s3://{BUCKET}/run"))
    if way == "up":
        upload = Upload(catalog, remote, Retention())
        manifest = upload.pending()
        assert manifest is not None
        upload.carry(manifest)
    else:
        assert Restore(catalog, remote, print, threading.Event()).newest() is not None


def boto3(way: str, path: Path) -> None:
    import boto3

    client = boto3.client("s3")
    if way == "up":
        client.upload_file(str(path), BUCKET, "boto3")
    else:
        client.download_file(BUCKET, "boto3", str(path))


def s3fs(way: str, path: Path) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    if way == "up":
        files.put(str(path), f"{BUCKET}/s3fs")
    else:
        files.get(f"{BUCKET}/s3fs", str(path))


def obstore(way: str, path: Path) -> None:
    from obstore import get, put
    from obstore.store import S3Store

    store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})
    if way == "up":
        put(store, "obstore", path)
    else:
        with path.open("wb", buffering=0) as target:
            for piece in get(store, "obstore").stream():
                target.write(piece)


def command(name: str, way: str, path: Path) -> list[str]:
    """The command line of one client."""
    here = [name, way, str(path)]
    there = f"s3://{BUCKET}/{name}"
    ends = [str(path), there] if way == "up" else [there, str(path)]
    if name == "aws":
        return [str(PEERS / "bin/aws"), "s3", "cp", "--only-show-errors", *ends]
    if name == "s5cmd":
        return [str(s5cmd_program()), "--log", "error", "cp", *ends]
    python = PEERS / "bin/python" if name == "obstore" else sys.executable
    return [str(python), __file__, *here]


def s5cmd_program() -> Path:
    """The program itself and not its Python wrapper, whose start would count."""
    return next(iter(PEERS.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")), PEERS / "no s5cmd")


CLIENTS: dict[str, Callable[[str, Path], None]] = {
    "raw": raw, "runctl": runctl, "boto3": boto3, "s3fs": s3fs, "obstore": obstore,
}  # fmt: skip
NAMES = ("raw", "runctl", "aws", "s5cmd", "boto3", "s3fs", "obstore")


def missing() -> dict[str, str]:
    """Clients that cannot be run here, and why."""
    needed = {
        "aws": PEERS / "bin/aws",
        "s5cmd": s5cmd_program(),
        "obstore": next(iter(PEERS.glob("lib/python*/site-packages/obstore")), PEERS / "no obstore"),
    }
    return {name: "not installed (make bench does)" for name, path in needed.items() if not path.exists()}


# --- the measurement ---


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server on a free port: its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("s3server.py")), str(folder), str(port)])
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if time.monotonic() > deadline:
                sys.exit("the server does not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def measured(words: list[str], env: dict[str, str]) -> Run:
    """Run a client.

    Raises:
        SystemExit: if it fails, with what it said.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(words, env=env, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(words)} failed:\n{said.read().decode(errors='replace')[-2000:]}")
    return Run(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def write_checkpoint(folder: Path, size_bytes: int) -> Path:
    """A checkpoint of one file of random bytes.

    Returns:
        The file.
    """
    from runctl.checkpoint import manifest as manifests

    aside = folder / ".tmp-made"
    aside.mkdir(parents=True)
    with (aside / "data.pt").open("wb") as file:
        for start in range(0, size_bytes, 1 << 24):
            file.write(os.urandom(min(1 << 24, size_bytes - start)))
    entry = manifests.hash_file(aside / "data.pt", manifests.best_hash())
    manifest = manifests.Manifest("run", 1, STEP, 0, 1, manifests.best_hash(), {"data.pt": entry})
    return manifests.publish(aside, manifest) / "data.pt"


def once(name: str, source: Path, folder: Path, env: dict[str, str]) -> dict[str, Run]:
    """Carry the file there and back, look that it is the same, and leave nothing."""
    there, back = folder / "server/objects" / BUCKET, folder / "back"
    shutil.rmtree(back, ignore_errors=True)
    target = back / source.parent.name / source.name
    if name != "runctl":
        target.parent.mkdir(parents=True)
    runs = {"up": measured(command(name, "up", source), env), "down": measured(command(name, "down", target), env)}
    if subprocess.run(["cmp", str(source), str(target)], check=False).returncode:
        sys.exit(f"{name} brought back other bytes")
    shutil.rmtree(back)
    for leftover in there.iterdir():
        shutil.rmtree(leftover)
    return runs


def main() -> None:
    size_gb = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    chosen = sys.argv[3].split(",") if len(sys.argv) > 3 else list(NAMES)
    absent = missing()
    names = [name for name in NAMES if name in chosen and name not in absent]
    for name in sorted(set(absent) & set(chosen)):
        print(f"{name} is left out: {absent[name]}")
    with tempfile.TemporaryDirectory(prefix="runctl-transfer-") as made:
        folder = Path(made)
        if shutil.disk_usage(folder).free < 4 * size_gb * 1e9:
            sys.exit(f"{folder}: less than {4 * size_gb:g} GB are free; TMPDIR chooses another place")
        source = write_checkpoint(folder / "local", int(size_gb * 1e9))
        with server(folder / "server") as url:
            env = {
                **os.environ, "AWS_ENDPOINT_URL": url, "S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }  # fmt: skip
            (folder / "server/objects" / BUCKET).mkdir(parents=True, exist_ok=True)
            results: dict[str, list[dict[str, Run]]] = {name: [] for name in names}
            for number in range(rounds + 1):
                # After one round that does not count; each begins a round in its turn.
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    runs = once(name, source, folder, env)
                    if number:
                        results[name].append(runs)
    for way, title in (("up", "upload"), ("down", "restore")):
        show(f"{title} of {size_gb:g} GB, medians of {rounds} rounds", {n: [r[way] for r in results[n]] for n in names})


def show(title: str, results: dict[str, list[Run]]) -> None:
    """A table; the ratio is ours over theirs, round by round, its median and its spread."""
    print(f"\n{title:<44} {'wall':>8} {'CPU':>8} {'peak':>8}   runctl's wall / theirs")
    for name, runs in results.items():
        line = (
            f"{name:<44} {statistics.median(r.wall_s for r in runs):6.2f} s "
            f"{statistics.median(r.cpu_s for r in runs):6.2f} s {max(r.peak_bytes for r in runs) / 1e6:5.0f} MB"
        )
        if "runctl" in results and name != "runctl":
            ratios = [ours.wall_s / theirs.wall_s for ours, theirs in zip(results["runctl"], runs, strict=True)]
            line += f"   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[2] in ("up", "down"):
        sys.path.pop(0)  # this folder, which would be looked into first
        CLIENTS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    else:
        main()

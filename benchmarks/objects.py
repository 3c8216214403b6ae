"""Object storage for the benchmarks: moto's S3 over HTTP on loopback, a process of its own.

    python benchmarks/objects.py [idle]

Prints its port, and ends with its standard input. `idle` has it run only when nobody else wants the processor, as
storage elsewhere would not take any of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def object_storage(*, idle: bool) -> Iterator[tuple[dict[str, str], str]]:
    """Have a server for a while.

    Yields:
        The environment in which boto3 and s3fs find it, and the name of an empty bucket.
    """
    import boto3

    words = [sys.executable, str(Path(__file__).resolve()), *(["idle"] if idle else [])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        bucket = f"benchmark-{secrets.token_hex(6)}"
        boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            region_name=env["AWS_DEFAULT_REGION"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
        ).create_bucket(Bucket=bucket)
        try:
            yield env, bucket
        finally:
            server.stdin.close()


def main() -> None:
    from moto.server import ThreadedMotoServer

    if "idle" in sys.argv:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # An idle-class server that gets no processor answers so late that clients ask again, which moto takes amiss; what
    # fails for good is theirs to tell.
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()

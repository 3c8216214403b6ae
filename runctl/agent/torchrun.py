"""The torchrun child: the one file of the agent that imports torch.

Started ahead of its orders, it imports `torch.distributed.run` while the launcher still composes the
configuration. It then reads one line {"argv", "env", "cwd"} from its standard input, runs torchrun, and reports
on the descriptor given as its argument: torchrun's own exit code is 1 for everything, the ChildFailedError
that it raises knows each rank's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

from runctl import processes

#: Seconds between SIGTERM and SIGKILL for a rank when torchrun itself is told to stop.
SHUTDOWN_TIMEOUT_S = 10


def main(report_fd: int) -> None:
    """Import torchrun, wait for the order, carry it out, report, and leave without further ado."""
    processes.die_with_parent(int(os.environ["RUNCTL_PARENT_PID"]))
    import torch.distributed.run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    line = sys.stdin.readline()
    if not line:
        os._exit(0)  # the agent went without needing us
    order = json.loads(line)
    _watch_agent()
    os.environ.update(order["env"])
    os.environ["RUNCTL_PARENT_PID"] = str(os.getpid())
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_TIMEOUT_S))
    os.chdir(order["cwd"])

    report: dict[str, Any]
    try:
        torchrun.run(torchrun.parse_args(order["argv"]))
        report = {"succeeded": True}
    except ChildFailedError as error:
        report = {
            "failures": [
                {"rank": rank, "exit_code": failure.exitcode, "pid": failure.pid}
                for rank, failure in error.failures.items()
            ]
        }
    except SignalException as error:
        report = {"signal": int(error.sigval)}
    except BaseException:  # noqa: BLE001 (whatever it is, the agent tells the user)
        report = {"error": traceback.format_exc()}
    os.write(report_fd, json.dumps(report).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    # Tearing down an interpreter that has torch loaded takes a tenth of a second that nobody needs.
    os._exit(0)


def _watch_agent() -> None:
    """Keep an eye on the pipe from the agent; ranks get an empty standard input instead of it."""
    pipe = os.dup(0)
    os.set_inheritable(pipe, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def wait_for_end() -> None:
        while os.read(pipe, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="runctl-agent", daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))

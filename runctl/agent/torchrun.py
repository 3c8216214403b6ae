"""The torchrun child: the one file of the agent that imports torch.

Started ahead of its orders, it imports `torch.distributed.run` while the launcher still composes the
configuration. It then reads one line {"argv", "env", "cwd", "kill_after_s"} from its standard input, runs torchrun,
and reports on the descriptor given as its argument: torchrun's own exit code is 1 for everything, the ChildFailedError
that it raises knows each rank's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from typing import Any

from runctl import processes


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
    agent_gone = _watch_agent(order["env"]["RUNCTL_RUN_DIR"])
    os.environ.update(order["env"])
    os.environ["RUNCTL_PARENT_PID"] = str(os.getpid())
    # The agent's own time between SIGTERM and SIGKILL; torchrun takes whole seconds.
    timeout = os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(math.ceil(order["kill_after_s"])))
    os.chdir(order["cwd"])
    first = _FirstFailures(int(timeout))

    report: dict[str, Any]
    try:
        options = torchrun.parse_args(order["argv"])
        if options.max_restarts:
            # Torch 2.13 keeps one store over restarts, in which ranks find the addresses of those before them and
            # hang. Without sharing, each restart has a store of its own, at a port of its own.
            os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
        torchrun.run(options)
        report = {"succeeded": True}
    except ChildFailedError as error:
        report = {
            "failures": [
                {"rank": rank, "exit_code": failure.exitcode, "first": failure.local_rank in first.local_ranks}
                for rank, failure in error.failures.items()
            ]
        }
    except SignalException as error:
        report = {"signal": int(error.sigval)}
    except BaseException as error:  # noqa: BLE001 (whatever it is, the agent tells the user)
        message = "".join(traceback.format_exception_only(error)).strip()
        report = {"error": message, "traceback": traceback.format_exc()}
    with contextlib.suppress(BrokenPipeError):  # the agent has gone
        os.write(report_fd, json.dumps(report).encode())
    if agent_gone.wait(0):
        threading.Event().wait()  # the thread that ends what belongs to the run ends us last
    sys.stdout.flush()
    sys.stderr.flush()
    # Tearing down an interpreter that has torch loaded takes a tenth of a second that nobody needs.
    os._exit(0)


class _FirstFailures:
    """Which ranks failed by themselves, before torchrun began to end the others; and an earlier end for those.

    torchrun gives the peers of a failed rank 30 s, which no option changes (pytorch#192815), and then counts
    them as failed too. Both are seen to where it closes a group of ranks.

    Args:
        timeout_s: seconds that ranks get between SIGTERM and SIGKILL, whyever they are to end.
    """

    def __init__(self, timeout_s: int) -> None:
        from torch.distributed.elastic.multiprocessing.api import PContext

        self.local_ranks: frozenset[int] = frozenset()
        self._closed: object = None
        close = PContext.close

        # Where it is given a time, that is the 30 s again or ours.
        def close_sooner(group: Any, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:  # noqa: ARG001
            if group is not self._closed:  # it is closed once more on the way out
                self._closed, self.local_ranks = group, frozenset(getattr(group, "_failures", ()))
            close(group, death_sig, timeout_s)

        PContext.close = close_sooner


def _watch_agent(run_dir: str) -> threading.Event:
    """Keep an eye on the pipe from the agent; ranks get an empty standard input instead of it.

    If the agent goes, whatever belongs to the run is ended: also what the ranks started, which would outlive
    them. The kernel's signal at a parent's death would leave no time for that.

    Returns:
        Set once the agent has gone.
    """
    gone = threading.Event()
    pipe = os.dup(0)
    os.set_inheritable(pipe, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def wait_for_end() -> None:
        while os.read(pipe, 4096):
            pass
        gone.set()
        try:
            processes.end_by_environment("RUNCTL_RUN_DIR", run_dir)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # ranks started meanwhile die with us

    threading.Thread(target=wait_for_end, name="runctl-agent", daemon=True).start()
    processes.outlive_parent()
    return gone


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""What the keeper of a host is told whose agent is to run in a container (runctl/hosts/docker-python.sh).

The keeper itself stays on the host. To it the container is an interpreter, called from folders of the attempt.
"""

from __future__ import annotations

from typing import Any

from runctl.spec import LaunchSpec

FOLDER, PROGRAM = "docker", "docker-python"
#: Seen from where the agent and setup lines run, which are folders beside its own.
_PYTHON = f"../{FOLDER}/{PROGRAM}"


def wanted(spec: LaunchSpec) -> bool:
    """Whether the agent is to run in a container."""
    return spec.environment.kind == "docker"


def orders(spec: LaunchSpec, attempt: int, setup: tuple[str, ...]) -> dict[str, Any]:
    """Of the keeper's orders: the agent's interpreter, the setup lines, the environment.

    Args:
        spec: what is to run.
        attempt: its number.
        setup: the user's own lines.
    """
    if not wanted(spec):
        return {"setup": list(setup), "agent_python": None, "env": {}}
    # The last line has the image pulled and the agent's environment made: what fails there fails as the rest does.
    return {
        "setup": [*setup, f"{_PYTHON} -V"],
        "agent_python": _PYTHON,
        "env": {
            "RUNCTL_DOCKER_IMAGE": spec.environment.image,
            "RUNCTL_DOCKER_NAME": f"runctl-{spec.run.id}-a{attempt}",
        },
    }

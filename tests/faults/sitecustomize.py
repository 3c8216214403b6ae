"""Python imports this at the start of every process that has this folder on PYTHONPATH."""

from __future__ import annotations

import fault_points

fault_points.install()

"""How many threads to compute with.

Owns the count of physical cores that this process may use: its CPU affinity, the cores' hyper-threads, and a
container's CPU quota. A second thread on a core slows ggml's kernels down.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Physical cores available to this process, at least 1."""
    return max(1, min(_cores_of_affinity(), _cores_of_quota()))


def _cores_of_affinity() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    cores = set()
    for cpu in cpus:
        try:
            cores.add(Path(_TOPOLOGY.format(cpu)).read_text(encoding="ascii").strip())
        except OSError:
            return len(cpus)
    return len(cores)


def _cores_of_quota() -> int:
    """A container's quota in whole cores, rounded up; no quota is no limit."""
    try:
        quota, period = _CGROUP_V2.read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return os.cpu_count() or 1

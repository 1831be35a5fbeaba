"""How many CPU threads each rank of a machine may use, where nobody says it by `OMP_NUM_THREADS`.

By default torch takes all CPUs on every rank, and does not see the quota of a container.
"""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["threads_of_rank"]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_TASK, _NODE = "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"


def threads_of_rank(local_size: int, environ: Mapping[str, str], *, is_task: bool = False) -> int:
    """Divide the CPUs among the ranks of this machine.

    Args:
        local_size: Ranks on this machine.
        environ: The environment variables.
        is_task: Whether the rank is a task of srun. What Slurm gives a task is for it alone.

    Returns:
        The number of threads, at least 1.
    """
    cpus = _usable_cpus()
    if is_task:
        own, of_node = (_number(environ, name) for name in (_TASK, _NODE))
        if own or cpus < of_node:  # bound to CPUs of its own, as by --cpus-per-gpu
            return min(cpus, own or cpus)
    return max(1, cpus // local_size)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def _usable_cpus() -> int:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, _quota(here)))


def _quota(default: int) -> int:
    """The CPUs that the container may keep busy, as Docker and Kubernetes limit them (cgroup v2)."""
    try:
        allowed, period = _QUOTA.read_text().split()
        return int(allowed) // int(period)
    except (OSError, ValueError):  # no such file, or no limit: "max"
        return default

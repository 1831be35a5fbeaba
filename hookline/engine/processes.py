"""What the system tells about this process and its children: who they are, and how much memory they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["children_of", "command_of", "explain_out_of_memory", "private_memory"]

_HELPER = "multiprocessing.resource_tracker"


def children_of(pid: int | None = None) -> list[int]:
    """List the processes that a process started, and those that these started, but for multiprocessing's helper.

    Args:
        pid: the process, by default this one.

    Returns:
        Their numbers, in order; none where the system has no ``/proc``.
    """
    return sorted(_descendants(os.getpid() if pid is None else pid, _parents()))


def command_of(pid: int) -> str:
    """Return the beginning of a process's command line, empty if it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return ""
    return words.decode("utf-8", "replace").strip()[:200]


def private_memory(pid: int | str = "self") -> int | None:
    """Return the bytes of memory that only this process holds.

    What it shares with others, such as the data set with forked workers, does not count; once it has written into a
    shared page, that counts.

    Args:
        pid: the process, by default this one.

    Returns:
        Bytes; None if the process is gone or the system does not tell.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_"))
    except (OSError, ValueError):
        return None


def explain_out_of_memory() -> str:
    """Say what to do when the memory of a GPU was not enough."""
    return (
        "The GPU's memory was not enough for this batch. Less is needed by a smaller dataloader.train.total_batch_size "
        "with train.accumulate in its place, by train.precision=bf16, by smaller images, and by freezing layers; "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True helps where much is reserved and little allocated:"
    )


def _parents() -> dict[int, int]:
    """Give every process's parent; ``/proc/PID/task/TID/children`` would be quicker, but not every kernel has it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            behind_name = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2]
            parents[int(folder.name)] = int(behind_name.split()[1])
        except (OSError, ValueError, IndexError):  # it has just ended
            continue
    return parents


def _descendants(pid: int, parents: dict[int, int]) -> Iterator[int]:
    for child in [child for child, parent in parents.items() if parent == pid]:
        if _HELPER not in command_of(child):
            yield child
        yield from _descendants(child, parents)

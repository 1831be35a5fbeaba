"""A warning when the memory of this process or of its children grows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase
from hookline.engine.processes import children_of, command_of, private_memory

__all__ = ["MemoryGuard"]

MIB = 2**20

logger = logging.getLogger(__name__)


class MemoryGuard(HookBase):
    """Warns when this process or one of its data workers holds more and more memory.

    Counted is what only that process holds, so the data set that forked workers share does not count until they write
    into it. The first look, one period after the start, is the measure, and so is the first look at a process that
    appears later. A process that grew by ``growth`` is named once, and then measured by its new size.

    Args:
        growth: share by which a process must have grown, such as 0.25.
        period: iterations between two looks; a look takes 10 to 20 ms a process.
        least_mib: growth below so many MiB is not worth a word.

    Raises:
        ValueError: if the growth is not positive.
    """

    def __init__(self, growth: float = 0.25, period: int | Every = 1000, *, least_mib: float = 64.0) -> None:
        if not growth > 0:
            raise ValueError(f"growth={growth}: expected a share above 0, such as 0.25")
        self._growth = growth
        self._every = Every.of(period)
        self._least = int(least_mib * MIB)
        self._measures: dict[int, tuple[int, int]] = {}  # by process: bytes, and the iteration of that look

    def before_train(self) -> None:
        """Say so if the system does not tell."""
        self._measures = {}
        if private_memory() is None:
            logger.info("MemoryGuard: this system has no /proc/self/smaps_rollup, so memory is not watched")

    def after_step(self) -> None:
        """Look when it is time."""
        if self._every(self.trainer.iter):
            self._look(["self", *children_of()])

    def _look(self, processes: Iterable[int | str]) -> None:
        measures, self._measures = self._measures, {}
        for process in processes:
            pid = 0 if process == "self" else int(process)
            now = private_memory(process)
            if now is None:
                continue
            before, since = self._measures[pid] = measures.get(pid, (now, self.trainer.iter))
            if now - before >= max(self._least, int(self._growth * before)):
                self._warn(pid, before, now, since)
                self._measures[pid] = (now, self.trainer.iter)

    def _warn(self, pid: int, before: int, now: int, since: int) -> None:
        who = f"child process {pid} ({command_of(pid)[:60]})" if pid else "this process"
        logger.warning(
            "the memory of %s grew from %.0f to %.0f MiB (%+.0f %%) between the iterations %d and %d; %s is available",
            *(who, before / MIB, now / MIB, 100 * (now / max(before, 1) - 1), since, self.trainer.iter, _available()),
        )


def _available() -> str:
    """What the machine has left, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return f"{int(line.split()[1]) / 1024:.0f} MiB"
    return "an unknown amount"

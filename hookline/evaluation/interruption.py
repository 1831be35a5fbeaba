"""Stop an evaluation before its end, on all ranks together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch.distributed as dist

from hookline.distributed import any_rank, get_world_size
from hookline.distributed_groups import waiting

__all__ = ["EvaluationInterrupted", "StopWatcher"]

_LOOK_PERIOD_S = 0.2
_numbers = itertools.count()


class EvaluationInterrupted(Exception):
    """An evaluation was asked to stop and gave no results; raised on all ranks together."""


class StopWatcher:
    """Tells a rank between two batches that it, or another rank, was asked to stop.

    Ranks go through their batches at their own speed, so they cannot vote in between. The first one to be asked leaves
    a note in the store where the ranks met, and the others look there five times a second. All ranks must make their
    watchers in the same order.

    Args:
        should_stop: whether this rank was asked to stop; called often, must be quick.
    """

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._stopped = False
        self._store = dist.distributed_c10d._get_default_store() if get_world_size() > 1 else None
        self._key = f"hookline/stop_evaluation/{next(_numbers)}"
        self._next_look = 0.0

    def stopped(self) -> bool:
        """Tell whether this rank should leave its loop."""
        if not self._stopped and self._should_stop():
            self._stopped = True
            if self._store is not None:
                with waiting(patient=True):  # for machine 0, which may be cut off
                    self._store.set(self._key, "1")
        return self._stopped or self._found_note()

    def agree(self) -> None:
        """Let all ranks learn, after their loops, whether one of them left early.

        Raises:
            EvaluationInterrupted: on all ranks, if so.
        """
        if any_rank(self._stopped, patient=True):
            raise EvaluationInterrupted("the evaluation was asked to stop")

    def _found_note(self) -> bool:
        now = time.monotonic()
        if self._store is None or now < self._next_look:
            return False
        self._next_look = now + _LOOK_PERIOD_S
        with waiting(patient=True):
            self._stopped = self._store.check([self._key])
        return self._stopped

"""When Python collects its garbage."""

from __future__ import annotations

import gc
import os
import time

from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase

__all__ = ["GarbageCollection"]

_is_off = False  # by the hook, not by the user
_is_hooked = False


class GarbageCollection(HookBase):
    """Collects garbage every ``period`` iterations, on all ranks at the same one, and never in between.

    Left to itself Python collects at another moment on each rank, and all ranks wait for each of these pauses. What is
    alive when training begins is set aside, so that it is not looked at again and again. Data workers that are forked
    meanwhile collect as usual.

    Args:
        period: iterations between two collections.
    """

    def __init__(self, period: int | Every = 1000) -> None:
        self._every = Every.of(period)
        self._was_on = False

    def before_train(self) -> None:
        """Collect, set aside what is left, and switch the automatic collection off."""
        global _is_off, _is_hooked
        if not _is_hooked and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_switch_on_in_child)
            _is_hooked = True
        self._was_on = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        _is_off = self._was_on

    def after_step(self) -> None:
        """Collect when it is time, and record the seconds it took as ``gc_time``."""
        if self._every(self.trainer.iter):
            start = time.perf_counter()
            gc.collect()
            self.trainer.storage.put_scalar("gc_time", time.perf_counter() - start, smoothing_hint=False)

    def after_train(self) -> None:
        """Leave collecting to Python again."""
        global _is_off
        gc.unfreeze()
        if self._was_on:
            gc.enable()
        _is_off = self._was_on = False


def _switch_on_in_child() -> None:
    """A data worker has no such hook; without any collection its memory would grow."""
    if _is_off:
        gc.enable()

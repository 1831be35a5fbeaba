"""When measurements are written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hookline.distributed import get_world_size
from hookline.engine.every import Every
from hookline.engine.train_loop import HookBase
from hookline.engine.writers import EventWriter

__all__ = ["PeriodicWriter"]

logger = logging.getLogger(__name__)


class PeriodicWriter(HookBase):
    """Lets writers write every ``period`` iterations, after the last one, and once more when training has ended.

    Args:
        writers: the writers, called in this order.
        period: iterations between two times.

    Raises:
        TypeError: if one of them is no writer; names it.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int | Every = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise TypeError(f"PeriodicWriter: {writer!r} is {type(writer).__qualname__}, expected an EventWriter")
        self._writers = list(writers)
        self._every = Every.of(period, last=True)

    def before_train(self) -> None:
        """Let the writers get ready."""
        gathering = getattr(self.trainer, "gather_metric_period", 1)
        if self._writers and get_world_size() > 1 and self._every.period % gathering:
            logger.warning(
                "losses are averaged over ranks every %d iterations but written every %d: between, they are rank 0's",
                *(gathering, self._every.period),
            )
        for writer in self._writers:
            writer.begin(self.trainer.start_iter)

    def after_step(self) -> None:
        """Write when it is time."""
        trainer = self.trainer
        if self._every(trainer.iter, trainer.max_iter):
            self._write()

    def after_train(self) -> None:
        """Write what hooks measured at the end, and close the writers."""
        try:
            self._write()
        finally:
            for writer in self._writers:
                writer.close()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()
        self.trainer.storage.clear_images()
        self.trainer.storage.clear_histograms()

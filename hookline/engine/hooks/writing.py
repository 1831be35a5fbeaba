"""When measurements are written."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline.distributed import get_world_size
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase
from hookline.engine.writers_base import EventWriter

__all__ = ["PeriodicWriter"]

logger = logging.getLogger(__name__)


class PeriodicWriter(HookBase):
    """Lets writers write every ``period`` iterations, after the last one, and once more when training has ended.

    A writer that fails is named in a warning, once, and called again the next time: a full disk or a server that is
    down never stops training. What the writers must know over a resume lies in the checkpoint.

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
        self._failed: set[int] = set()
        self._has_begun = False
        self._must_catch_up = False

    def before_train(self) -> None:
        """Let the writers get ready."""
        trainer, start_iter = self.trainer, self.trainer.start_iter
        gathering = getattr(trainer, "gather_metric_period", 1)
        if self._writers and get_world_size() > 1 and self._every.period % gathering:
            logger.warning(
                "losses are averaged over ranks every %d iterations but written every %d: between, they are rank 0's",
                *(gathering, self._every.period),
            )
        self._call("begin", start_iter)
        self._has_begun = True
        self._must_catch_up = start_iter > 0 and self._every(start_iter - 1, trainer.max_iter)

    def before_step(self) -> None:
        """Write the step before the first one where a resumed run must, with what others made up for."""
        self._catch_up()

    def after_step(self) -> None:
        """Write when it is time."""
        trainer = self.trainer
        if self._every(trainer.iter, trainer.max_iter):
            self._write()
            trainer.wait_for_main(self)

    def after_train(self) -> None:
        """Write what hooks measured at the end, and close the writers."""
        try:
            if self._has_begun:  # else what the storage holds is that of an earlier run
                self._catch_up()
                self._write()
                self._call("conclude", self.trainer.iter >= self.trainer.max_iter)
        finally:
            self._has_begun = False
            self._call("close")

    def state_dict(self) -> dict[str, Any]:
        """Return what the writers must know when the run is resumed; before that they bring all to the disk."""
        states = {key: self._guard(writer, "state_dict") for key, writer in self._keyed()}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Tell the writers what they must know."""
        for key, writer in self._keyed():
            if key in state:
                self._guard(writer, "load_state_dict", state[key])

    def _catch_up(self) -> None:
        if self._must_catch_up:
            self._must_catch_up = False
            self._call("catch_up")

    def _write(self) -> None:
        self._call("write")
        self.trainer.storage.clear_images()
        self.trainer.storage.clear_histograms()

    def _call(self, method: str, *args: Any) -> None:
        for writer in self._writers:
            self._guard(writer, method, *args)

    def _guard(self, writer: EventWriter, method: str, *args: Any) -> Any:
        try:
            return getattr(writer, method)(*args)
        except Exception as error:
            if id(writer) not in self._failed:
                self._failed.add(id(writer))
                logger.warning(
                    "%s failed in %s() with %s: %s. Training goes on without what it should write; further failures "
                    "of it are not told",
                    *(type(writer).__name__, method, type(error).__name__, error),
                    exc_info=True,
                )
            return None

    def _keyed(self) -> Iterator[tuple[str, EventWriter]]:
        seen: Counter[str] = Counter()
        for writer in self._writers:
            name = type(writer).__qualname__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), writer

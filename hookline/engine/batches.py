"""The endless stream of batches that a trainer takes, over any iterable."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["BatchStream", "file_names"]

logger = logging.getLogger(__name__)


class BatchStream:
    """Draws batches without end: the loader is iterated when the first batch is asked for, and again when it ends.

    Args:
        loader: any iterable of batches. With a method ``seek(num_batches)`` it can go on where a run stopped.

    Raises:
        TypeError: if the loader is no iterable.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            raise TypeError(f"data_loader must be an iterable of batches, got {type(loader).__name__}: {loader!r}")
        self.loader = loader
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Any:
        """Return the next batch.

        Raises:
            RuntimeError: if the loader gives no batch at all.
        """
        if self._iterator is not None:
            try:
                return next(self._iterator)
            except StopIteration:
                self._iterator = None
        self._iterator = iter(self.loader)
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = None
            raise RuntimeError(
                f"data_loader ({type(self.loader).__name__}) gave no batch: it is empty, or can be iterated only once"
            ) from None

    def seek(self, num_batches: int) -> None:
        """Go on behind the first ``num_batches`` batches of the stream.

        Args:
            num_batches: batches drawn so far by the run that goes on, 0 for a fresh start.
        """
        self.close()
        seek = getattr(self.loader, "seek", None)
        if seek is not None:
            seek(num_batches)
        elif num_batches > 0:
            logger.warning(
                "%s has no method seek(num_batches): training goes on, but the order of the data is not restored",
                type(self.loader).__name__,
            )

    def close(self) -> None:
        """Drop the iterator, and with it the worker processes that it may hold."""
        self._iterator = None


def file_names(batch: Any) -> list[str]:
    """Return the ``file_name`` of every sample of a batch that has one, for messages.

    Args:
        batch: a list of sample dicts; anything else has no names.
    """
    if not isinstance(batch, (list, tuple)):
        return []
    return [sample["file_name"] for sample in batch if isinstance(sample, dict) and "file_name" in sample]

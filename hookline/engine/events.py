"""The storage of what a run measures: scalars, images, histograms.

A scalar may be a tensor on a device. It stays there until somebody reads the storage or a writing period ends; then all
values come over in one transfer, instead of one halt of the device for each.
"""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from hookline.engine.history import HistoryBuffer
from hookline.engine.scalars import as_scalar, to_floats
from hookline.engine.visuals import VisualStorage

__all__ = ["EventStorage", "get_event_storage", "has_event_storage"]

PENDING_LIMIT = 10_000  # scalars that may wait, should nobody read the storage

_open_storages: list[EventStorage] = []


class Source(Protocol):
    """Somebody who holds measured tensors for the storage, such as the trainer with the losses of each step."""

    def waiting(self) -> list[torch.Tensor]:
        """Return the scalars whose values are not known on the host yet."""

    def deliver(self, values: Iterator[float], storage: EventStorage) -> None:
        """Take one value for each waiting tensor and record what they mean."""

    def check(self) -> None:
        """Raise if something delivered must stop the run."""


class EventStorage(VisualStorage):
    """Holds what is measured during training, under the iteration in which it was measured.

    As a context manager it is the storage that :func:`get_event_storage` finds, so a model can log without knowing the
    trainer.

    Args:
        start_iter: the iteration to begin with.
    """

    def __init__(self, start_iter: int = 0) -> None:
        super().__init__()
        self.iter = start_iter
        self._pending: list[tuple[str, float | torch.Tensor, int]] = []
        self._histories: dict[str, HistoryBuffer] = {}
        self._hints: dict[str, bool] = {}
        self._sources: list[weakref.ReferenceType[Source]] = []
        self._smoothed: dict[int, dict[str, tuple[float, int]]] = {}
        self._window = 20

    @property
    def iteration(self) -> int:
        """The current iteration; the same as ``iter``."""
        return self.iter

    def step(self) -> None:
        """Go to the next iteration; a trainer does this by itself."""
        self.iter += 1

    def put_scalar(self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None) -> None:
        """Record a scalar.

        Args:
            name: the metric; names that contain ``loss`` appear in the console's line.
            value: a number or a tensor of one element. A tensor is copied on its device and read later.
            smoothing_hint: whether writers should show a median over the last iterations instead of the newest value.
            cur_iter: the iteration it belongs to, the current one when left out.

        Raises:
            ValueError: if the hint differs from earlier calls.
        """
        if self._prefix:
            name = self._prefix + name
        if type(value) is not float:
            value = as_scalar(name, value)
        if self._hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise ValueError(f"scalar {name!r} was put with smoothing_hint={self._hints[name]}, now {smoothing_hint}")
        self._pending.append((name, value, self.iter if cur_iter is None else cur_iter))
        if len(self._pending) >= PENDING_LIMIT:
            self.flush()

    def put_scalars(self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **scalars: Any) -> None:
        """Record several scalars; see :meth:`put_scalar`.

        Args:
            smoothing_hint: for all of them.
            cur_iter: for all of them.
            scalars: values by name.
        """
        for name, value in scalars.items():
            self.put_scalar(name, value, smoothing_hint, cur_iter)

    def record(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Set smoothed scalars of an earlier iteration; values that are already there are replaced.

        Args:
            iteration: where they belong.
            scalars: values on the host by name, to which no prefix is added.
        """
        self._smoothed.clear()
        for name, value in scalars.items():
            history = self._histories.get(name)
            if history is None:
                self._hints.setdefault(name, True)
                history = self._history(name)
            history.amend(value, iteration)

    def forget(self, name: str) -> None:
        """Drop a scalar and its course.

        Args:
            name: the metric; it need not exist.
        """
        self.flush()
        self._histories.pop(name, None)
        self._smoothed.clear()

    def add_source(self, source: Source) -> None:
        """Let a holder of deferred values take part in :meth:`flush`; it is not kept alive by this.

        Args:
            source: the holder; adding it twice changes nothing.
        """
        for known in self._sources:
            if known() is source:
                return
        self._sources.append(weakref.ref(source))

    def flush(self) -> None:
        """Bring all waiting values to the host in one transfer, each into its history. No rank waits for another."""
        pending, self._pending = self._pending, []
        sources = [source for known in self._sources if (source := known()) is not None]
        waiting = [value for _, value, _ in pending if isinstance(value, torch.Tensor)]
        held = [source.waiting() for source in sources]
        if not pending and not any(held):
            return
        self._smoothed.clear()
        values = iter(to_floats(waiting + [tensor for tensors in held for tensor in tensors]))
        for name, value, iteration in pending:
            self._history(name).update(next(values) if isinstance(value, torch.Tensor) else value, iteration)
        for source in sources:
            source.deliver(values, self)

    def check(self) -> None:
        """Flush, then let every source raise if what it measured must stop the run."""
        self.flush()
        for known in self._sources:
            if (source := known()) is not None:
                source.check()

    def history(self, name: str) -> HistoryBuffer:
        """Return the course of one scalar.

        Args:
            name: the metric.

        Raises:
            KeyError: if nothing of that name was put; names the nearest ones.
        """
        self.flush()
        if name not in self._histories:
            near = difflib.get_close_matches(name, self._histories, n=3) or sorted(self._histories)
            raise KeyError(f"no scalar {name!r} in the storage; nearest: {', '.join(near) or '(nothing was put yet)'}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """Return the course of every scalar by name."""
        self.flush()
        return dict(self._histories)

    def latest(self) -> dict[str, tuple[float, int]]:
        """Return (newest value, its iteration) by name."""
        self.flush()
        return {name: (h.latest(), h.latest_iteration()) for name, h in self._histories.items()}

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Return what writers show by name: (value, iteration of the newest value).

        Args:
            window_size: the value of a scalar to be smoothed is its median over that many iterations.
        """
        self.flush()
        self._window = max(self._window, window_size)
        if window_size not in self._smoothed:  # several writers ask for the same
            self._smoothed[window_size] = {
                name: (h.smoothed(window_size) if self._hints[name] else h.latest(), h.latest_iteration())
                for name, h in self._histories.items()
            }
        return dict(self._smoothed[window_size])

    def smoothing_hints(self) -> dict[str, bool]:
        """Return by name whether a scalar is shown smoothed."""
        return dict(self._hints)

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Return how many values of a scalar lie within the newest ``window_size`` iterations.

        Args:
            name: the metric.
            window_size: in iterations.
        """
        return self.history(name).count_within(window_size)

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` before the name of everything recorded in this context.

        Args:
            name: the scope.
        """
        before = self._prefix
        self._prefix = f"{before}{name.rstrip('/')}/"
        try:
            yield
        finally:
            self._prefix = before

    def state_dict(self) -> dict[str, Any]:
        """Return the newest values of every scalar, as many as smoothing needs, in plain Python types."""
        self.flush()
        return {
            name: {**history.tail(self._window), "smoothing_hint": self._hints[name]}
            for name, history in self._histories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the values that :meth:`state_dict` gave, so that smoothed curves have no seam.

        Args:
            state: what was saved.
        """
        for name, saved in state.items():
            self._hints[name] = bool(saved["smoothing_hint"])
            self._histories[name] = HistoryBuffer()
            self._histories[name].extend(saved["values"], saved["iterations"])
        self._smoothed.clear()

    def _history(self, name: str) -> HistoryBuffer:
        history = self._histories.get(name)
        if history is None:
            history = self._histories[name] = HistoryBuffer()
        return history

    def __enter__(self) -> EventStorage:
        _open_storages.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _open_storages.remove(self)


def get_event_storage() -> EventStorage:
    """Return the innermost storage that is open as a context.

    Raises:
        RuntimeError: if there is none.
    """
    if not _open_storages:
        raise RuntimeError("no EventStorage is open: get_event_storage() works inside `with EventStorage():`, "
                           "which trainer.train() opens by itself")  # fmt: skip
    return _open_storages[-1]


def has_event_storage() -> bool:
    """Tell whether :func:`get_event_storage` would find one."""
    return bool(_open_storages)

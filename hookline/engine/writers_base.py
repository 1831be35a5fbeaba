"""What every writer is: told when to begin, write and close, and guarded by the hook that tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["EventWriter"]


class EventWriter:
    """Something that writes what :func:`~hookline.engine.events.get_event_storage` holds, whenever it is told to."""

    def begin(self, start_iter: int) -> None:
        """Get ready before the first step; what an earlier run wrote about this step and later ones is void.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """

    def catch_up(self) -> None:
        """Write what the restored storage holds of the step before the first one, if that is not written yet.

        Called behind :meth:`begin` of a resumed run if that step was one to write: a run that was killed between its
        checkpoint and its writers did not come to it.
        """

    def write(self) -> None:
        """Write what is new in the storage.

        Raises:
            NotImplementedError: always; for subclasses.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement write()")

    def conclude(self, finished: bool) -> None:
        """Learn, before :meth:`close`, how training ended.

        Args:
            finished: whether it came to its end; it did not if it failed or was suspended.
        """

    def close(self) -> None:
        """Finish; nothing is written after this."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know, for a checkpoint; what it counts as written must be on the disk."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; before :meth:`begin`."""

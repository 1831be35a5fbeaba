"""A hook made of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hookline.engine.hook_base import MOMENTS, HookBase

__all__ = ["CallbackHook"]


class CallbackHook(HookBase):
    """Calls a function with the trainer at each moment for which one is given.

    Args:
        before_train: called as ``before_train(trainer)``; likewise the others.
        before_step: see above.
        after_backward: see above.
        after_step: see above.
        after_train: see above.
    """

    def __init__(
        self,
        *,
        before_train: Callable[[Any], Any] | None = None,
        before_step: Callable[[Any], Any] | None = None,
        after_backward: Callable[[Any], Any] | None = None,
        after_step: Callable[[Any], Any] | None = None,
        after_train: Callable[[Any], Any] | None = None,
    ) -> None:
        given = (before_train, before_step, after_backward, after_step, after_train)
        self._functions = {moment: f for moment, f in zip(MOMENTS, given, strict=True) if f is not None}

    def wants(self, moment: str) -> bool:
        """Tell whether there is a function for that moment.

        Args:
            moment: one of ``MOMENTS``.
        """
        return moment in self._functions

    def before_train(self) -> None:
        """Call the function given for this moment."""
        self._call("before_train")

    def before_step(self) -> None:
        """Call the function given for this moment."""
        self._call("before_step")

    def after_backward(self) -> None:
        """Call the function given for this moment."""
        self._call("after_backward")

    def after_step(self) -> None:
        """Call the function given for this moment."""
        self._call("after_step")

    def after_train(self) -> None:
        """Call the function given for this moment."""
        self._call("after_train")

    def _call(self, moment: str) -> None:
        if moment in self._functions:
            self._functions[moment](self.trainer)

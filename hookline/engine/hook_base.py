"""A hook: what acts at the moments of training, and what it may raise there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MOMENTS", "HookBase", "SkipStep", "StopTraining"]

MOMENTS = ("before_train", "before_step", "after_backward", "after_step", "after_train")


class StopTraining(Exception):
    """Raised by a hook in ``before_step``, on all ranks, to end training there as if ``max_iter`` were reached."""


class SkipStep(Exception):
    """Raised by a hook in ``after_backward``, on all ranks, to leave this step out: its gradients are thrown away.

    Neither weights nor optimizer change, and the step's losses are not recorded. The iteration counts all the same, so
    schedules, periods and the order of the data are not moved. ``trainer.step_skipped`` tells other hooks.
    """


class HookBase:
    """Something that acts at certain moments of training; override the methods of those moments.

    ::

        hook.before_train()
        for trainer.iter in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()          # forward, backward, hook.after_backward(), optimizer step
            hook.after_step()
        trainer.iter += 1
        hook.after_train()              # always, also when something above raised

    At every moment the hooks act in the order in which they were registered. ``self.trainer`` gives ``iter``,
    ``start_iter``, ``max_iter``, ``storage``, ``model``, ``optimizer`` and ``data_loader``. In ``after_train``,
    ``trainer.iter == trainer.max_iter`` tells that training came to its end.

    What a hook must remember over a resume it returns from ``state_dict``: tensors and plain Python types.
    """

    trainer: Any = None
    """The trainer, by a weak reference: hooks keep no model alive. Set by ``register_hooks``."""

    def before_train(self) -> None:
        """Act once before the first step."""

    def before_step(self) -> None:
        """Act before each step."""

    def after_backward(self) -> None:
        """Act when a step's gradients are complete and of true size, before they are clipped and used."""

    def after_step(self) -> None:
        """Act after each step."""

    def after_train(self) -> None:
        """Act once at the end, also when training failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a resume; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""

    @property
    def state_key(self) -> str:
        """The name of this hook's state in a checkpoint; several hooks of one name get ``#2``, ``#3`` added."""
        return type(self).__qualname__

    def wants(self, moment: str) -> bool:
        """Tell whether the method of that moment must be called; by default whether it is overridden.

        Args:
            moment: one of :data:`MOMENTS`.
        """
        return moment in vars(self) or getattr(type(self), moment) is not getattr(HookBase, moment)

"""Averages of the weights over the steps, whatever the rule, and the file that holds them at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import getitem
from typing import Any

import torch
from torch import nn

from hookline.engine.checkpoint_match import unwrap_model
from hookline.engine.hook_base import HookBase

__all__ = ["AverageHook", "AveragesCheckpointer"]

logger = logging.getLogger(__name__)

_HALF = (torch.float16, torch.bfloat16)

# Where a tensor lives: the dict of its module and its key there. A parameter that is replaced is found all the same.
_Slots = dict[str, tuple[dict[str, Any], str]]


class AverageHook(HookBase):
    """Keeps ``average += share * (weight - average)`` after the steps that are due; subclasses are the rules.

    Averaged are parameters and floating-point buffers, as far as the model's checkpoint holds them; half-precision
    ones in float32. Whole-number buffers are the model's own. Every rank keeps the same averages, up to buffers such
    as BN statistics that differ between the ranks themselves; a checkpoint holds those of rank 0.

    Register it before the hooks that save: what they save is then the average with this step. It lies in the
    checkpoint with the hook's state, so a resumed run goes on exactly.
    """

    def __init__(self) -> None:
        self._updates = 0
        self._averages: dict[str, torch.Tensor] = {}
        self._model: nn.Module | None = None
        self._names: list[str] = []
        self._holders: tuple[list[dict[str, Any]], list[str]] = ([], [])
        self._half: list[int] = []

    def share(self, updates: int) -> float:
        """Give the share of this step's weights in the new average.

        Args:
            updates: how many updates there were before; at least 1 where the average began as a copy of a step's
                weights.

        Raises:
            NotImplementedError: in this base class.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement share()")

    def is_due(self, iteration: int) -> bool:
        """Tell whether the weights of this step are taken in; those of every step by default.

        Args:
            iteration: the step that is being finished, from 0.
        """
        return True

    @property
    def ready(self) -> bool:
        """Whether there are averages yet."""
        return bool(self._averages)

    @property
    def updates(self) -> int:
        """How many times weights were taken in."""
        return self._updates

    def attach(self, model: nn.Module) -> None:
        """Work on a model; averages that were loaded before go to its devices.

        Args:
            model: the model; wrappers are looked through.

        Raises:
            ValueError: if the averages are of another model.
        """
        self._model = unwrap_model(model)
        slots = _slots(self._model)
        weights = {name: holder[key] for name, (holder, key) in slots.items()}
        for name in weights.keys() | self._averages.keys() if self.ready else ():
            mine, saved = weights.get(name), self._averages.get(name)
            if mine is None or saved is None or mine.shape != saved.shape:
                raise ValueError(f"the averaged weights are of another model: {name} is not the same in both")
        self._names = list(slots)
        self._holders = ([holder for holder, _ in slots.values()], [key for _, key in slots.values()])
        self._half = [index for index, weight in enumerate(weights.values()) if weight.dtype in _HALF]
        if self.ready:
            self._averages = {name: self._averages[name].to(_wide(weight)) for name, weight in weights.items()}

    def before_train(self) -> None:
        """Work on the trainer's model."""
        self.attach(self.trainer.model)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the weights of this step in, if it is due and was not left out."""
        if self.trainer.step_skipped or not self.is_due(self.trainer.iter):
            return
        if not self.ready:
            self.begin()
        else:
            weights = self._weights()
            for index in self._half:
                weights[index] = weights[index].float()
            torch._foreach_lerp_(list(self._averages.values()), weights, self.share(self._updates))
        self._updates += 1

    @torch.no_grad()
    def begin(self) -> None:
        """Begin the averages as a copy of the weights."""
        pairs = zip(self._names, self._weights(), strict=True)
        self._averages = {name: _wide(weight).detach().clone() for name, weight in pairs}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages into the model, and the weights back at the end, bit for bit.

        Raises:
            RuntimeError: if there are none yet, or a module of the model was replaced since training began.
        """
        if not self.ready:
            raise RuntimeError(f"{type(self).__name__} has no averages yet")
        self._check_model()
        weights = self._weights()
        with torch.no_grad():
            before = [weight.clone() for weight in weights]
            torch._foreach_copy_(weights, list(self._averages.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights(), before)

    def adopt(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take what certain tensors of the model hold now for their averages.

        Args:
            tensors: parameters or buffers of the model, such as BN statistics that were measured with the averages.
        """
        wanted = {id(tensor) for tensor in tensors}
        with torch.no_grad():
            for name, weight in zip(self._names, self._weights(), strict=True):
                if id(weight) in wanted:
                    self._averages[name].copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by the names of the model without wrappers, and how many updates they had."""
        if not self.ready:
            return {}
        if self._model is not None:
            self._check_model()
        return {"updates": self._updates, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the averages of the run so far."""
        self._updates = state["updates"]
        self._averages = {name: average.clone() for name, average in state["averages"].items()}
        if self._model is not None:  # loaded in the midst of training
            self.attach(self._model)

    def _weights(self) -> list[torch.Tensor]:
        return list(map(getitem, *self._holders))

    def _check_model(self) -> None:
        """Look whether the model still consists of the modules whose weights are followed.

        Raises:
            RuntimeError: if not; names a weight.
        """
        assert self._model is not None
        slots = _slots(self._model)
        for name, holder in zip(self._names, self._holders[0], strict=True):
            if name not in slots or slots.pop(name)[0] is not holder:
                raise RuntimeError(f"{name} belongs to a module that was replaced during training: it has no average")
        if slots:
            raise RuntimeError(f"{next(iter(slots))} was added to the model during training: it has no average")


class AveragesCheckpointer(HookBase):
    """Saves the averages at the end as a slim checkpoint whose model weights they are.

    Such a file is evaluated or fine-tuned like any other. Register it behind the hooks that save and evaluate.

    Args:
        checkpointer: saves, see :class:`~hookline.engine.checkpoint.Checkpointer`.
        averages: the hook that keeps the averages.
        name: the file's name without ending.
        meta: plain values that the file keeps under "meta".
    """

    def __init__(self, checkpointer: Any, averages: AverageHook, name: str, **meta: Any) -> None:
        self._checkpointer = checkpointer
        self._averages = averages
        self._name = name
        self._meta = meta

    def after_train(self) -> None:
        """Save when training came to its end."""
        trainer = self.trainer
        if trainer.iter < trainer.max_iter:
            return
        if not self._averages.ready:
            logger.warning("%s is not saved: the run ended before there were averages", self._name)
            return
        with self._averages.averaged():
            self._checkpointer.save(self._name, iteration=trainer.iter - 1, save_optimizer=False, **self._meta)
            self._checkpointer.wait()


def _slots(model: nn.Module) -> _Slots:
    """Find the places of all floating-point tensors of a model's state dict; tied ones once."""
    slots: _Slots = {}
    seen = set()
    for path, module in model.named_modules():
        persistent = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
        for holder, tensors in ((module._parameters, module._parameters), (module._buffers, persistent)):
            for key, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point() and id(tensor) not in seen:
                    seen.add(id(tensor))
                    slots[f"{path}.{key}" if path else key] = (holder, key)
    return slots


def _wide(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() if weight.dtype in _HALF else weight

"""An exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hookline.engine.train_loop import HookBase

__all__ = ["EMAHook"]


class EMAHook(HookBase):
    """Keeps ``average = d * average + (1 - d) * weight`` over the steps, for parameters and floating-point buffers.

    In update t (from 0) ``d`` is the decay, with warm-up at most ``(1 + t) / (10 + t)``, so that the random weights of
    the beginning are forgotten sooner. Averages of half-precision weights are kept in float32.

    Register it before the hooks that save: what they save is then the average with this step. It lies in the
    checkpoint with the hook's state, so a resumed run goes on exactly. :meth:`averaged` puts the averages into the
    model for a while, to evaluate or to save them.

    Args:
        decay: ``d``, in [0, 1).
        half_life: instead of the decay, steps after which a weight counts half.
        warmup: see above.

    Raises:
        ValueError: if not one of decay and half-life is given, or out of its range.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging"; the warm-up is that of
    TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float | None = None, *, half_life: float | None = None, warmup: bool = True) -> None:
        if (decay is None) == (half_life is None):
            raise ValueError(f"decay={decay} and half_life={half_life}: give one of them")
        if half_life is not None:
            if not (math.isfinite(half_life) and half_life > 0):
                raise ValueError(f"half_life={half_life}: expected a number of steps above 0")
            decay = 0.5 ** (1.0 / half_life)
        assert decay is not None
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}: expected a number in [0, 1)")
        self.decay = decay
        self._warmup = warmup
        self._updates = 0
        self._averages: dict[str, torch.Tensor] = {}

    def before_train(self) -> None:
        """Begin with the weights of the model, or take those of the checkpoint to their device.

        Raises:
            ValueError: if the averages of the checkpoint are of another model.
        """
        weights = self._weights()
        if not self._averages:
            self._averages = {name: _wide(weight).clone() for name, weight in weights.items()}
            return
        for name in weights.keys() | self._averages.keys():
            mine, saved = weights.get(name), self._averages.get(name)
            if mine is None or saved is None or mine.shape != saved.shape:
                raise ValueError(f"the averaged weights are of another model: {name} is not the same in both")
        self._averages = {name: self._averages[name].to(_wide(weight)) for name, weight in weights.items()}

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the weights of this step in."""
        share = 1.0 - self._decay_now()
        self._updates += 1
        weights = [_wide(weight) for weight in self._weights().values()]
        torch._foreach_lerp_(list(self._averages.values()), weights, share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages into the trainer's model, and the weights back at the end, bit for bit."""
        weights = self._weights()
        before = {name: weight.clone() for name, weight in weights.items()}
        try:
            _copy(self._averages, weights)
            yield
        finally:
            _copy(before, weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by the names of the model without wrappers, and how many updates they had."""
        return {"updates": self._updates, "averages": dict(self._averages)} if self._averages else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the averages of the run so far."""
        self._updates = state["updates"]
        self._averages = {name: average.clone() for name, average in state["averages"].items()}

    def _decay_now(self) -> float:
        return min(self.decay, (1 + self._updates) / (10 + self._updates)) if self._warmup else self.decay

    def _weights(self) -> dict[str, torch.Tensor]:
        model = self.trainer.model
        model = model.module if hasattr(model, "no_sync") else model  # DistributedDataParallel
        named = [*model.named_parameters(), *model.named_buffers()]
        return {name: value.detach() for name, value in named if value.is_floating_point()}


def _wide(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])

"""The loss on a validation set, measured without leaving a trace in training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from hookline.distributed import all_gather, get_rank
from hookline.engine.checkpoint_match import unwrap_model
from hookline.engine.events import EventStorage
from hookline.engine.every import Every
from hookline.engine.hooks.measuring import MeasuringHook
from hookline.engine.lockstep import Lockstep
from hookline.engine.losses import as_losses
from hookline.engine.randomness import StepSeeder

__all__ = ["ValidationLossHook", "untouched"]

_QUIET = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
_QUIET_NAMES = ("StochasticDepth", "DropPath", "DropBlock")  # of torchvision, timm and others


class ValidationLossHook(MeasuringHook):
    """Records the losses over a whole validation set as ``validation/total_loss`` and ``validation/<loss>``.

    The model is called as in training, for it to return losses, but normalisation layers use their running statistics
    and dropout is off. Every sample has the same weight, whatever the batches and ranks. Model draws depend on the
    batch only, so that two measurements compare. Parameters, buffers, gradients, generators and the training metrics
    are afterwards what they were.

    Register it on every rank, each with its own part of the data. See
    :class:`~hookline.engine.hooks.measuring.MeasuringHook` for a run that is stopped meanwhile.

    Args:
        period: iterations between two measurements; 0 for the end only.
        data_loader: finite iterable of batches with what losses need, such as the ground truth.
        after_train: measure when training has come to its end.
        prefix: put before the names, with a slash.
        seed: of the model's draws.
        on_end: called on each rank behind its last batch; may raise the interruption, on all ranks together.
        interruption: the exception that says that the measurement was asked to stop early.
    """

    what = "validation loss"

    def __init__(
        self,
        period: int | Every,
        data_loader: Iterable[Any],
        after_train: bool = True,
        prefix: str = "validation",
        seed: int = 0,
        *,
        on_end: Callable[[], None] | None = None,
        interruption: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        super().__init__(period, after_train, interruption=interruption)
        self._loader = data_loader
        self._prefix = prefix
        self._seed = seed
        self._on_end = on_end

    def measure(self) -> Mapping[str, float]:
        """Sum up the whole set.

        Raises:
            ValueError: if the loaders of all ranks are empty.
        """
        sums, count = self._sum_here()
        everywhere = all_gather((sums, count), patient=True)  # ranks differ in how long they took
        total = sum(samples for _, samples in everywhere)
        if total == 0:
            raise ValueError("the data_loader of ValidationLossHook gives no sample: expected a validation set")
        names = dict.fromkeys(name for found, _ in everywhere for name in found)
        losses = {name: sum(found.get(name, 0.0) for found, _ in everywhere) / total for name in names}
        losses["total_loss"] = sum(losses.values())
        return {f"{self._prefix}/{name}": value for name, value in losses.items()}

    def _sum_here(self) -> tuple[dict[str, float], int]:
        model = unwrap_model(self.trainer.model)  # ranks differ in batches
        sums: dict[str, torch.Tensor] = {}
        count = 0
        seeder = StepSeeder(self._seed, get_rank())
        with untouched(model), torch.no_grad(), EventStorage(self.trainer.iter):
            model.train()
            for module in model.modules():
                if isinstance(module, _QUIET) or type(module).__name__ in _QUIET_NAMES:
                    module.eval()
            calls = Lockstep(model)
            for index, batch in enumerate(self._loader):
                seeder.seed_python(index)
                seeder.seed_torch(index)
                with self.trainer.precision.forward():
                    losses = as_losses(calls(batch))
                count += len(batch)
                for name, loss in losses.items():
                    weighted = loss.detach().double().reshape(()) * len(batch)
                    sums[name] = sums[name] + weighted if name in sums else weighted
            calls.finish()
        if self._on_end is not None:
            self._on_end()
        return {name: float(value) for name, value in sums.items()}, count


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give a model's modes and buffers, and all global generators, back as they were.

    Args:
        model: the model.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    python, arrays, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = torch.get_device_module(accelerator) if accelerator is not None else None
    on_device = device.get_rng_state() if device is not None else None
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer.copy_(before)  # the model may have put another tensor in its place
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(cpu)
        if device is not None:
            device.set_rng_state(on_device)

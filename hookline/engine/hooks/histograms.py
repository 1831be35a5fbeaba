"""Distributions of parameters and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hookline.distributed import is_main_process
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase

__all__ = ["HistogramHook"]


class HistogramHook(HookBase):
    """Records histograms of every trained parameter and its gradient, named after the parameter.

    Gradients are those that are complete and of true size, before they are clipped; parameters those that the step
    made of them. Each histogram waits for the device, so the period should be long. The main rank records; of
    parameters that are shared out over ranks, its own share. Elements that are not finite are left out.

    Args:
        period: iterations between two times.
        parameters: record parameters, as ``parameters/NAME``.
        gradients: record gradients, as ``gradients/NAME``.
        bins: of each histogram.
    """

    def __init__(
        self, period: int | Every, *, parameters: bool = True, gradients: bool = True, bins: int = 100
    ) -> None:
        self._every = Every.of(period)
        self._parameters = parameters
        self._gradients = gradients
        self._bins = bins

    def after_backward(self) -> None:
        """Record the gradients when it is time."""
        if self._gradients and self._is_due():
            for name, parameter in self._trained():
                if parameter.grad is not None:
                    self._record(f"gradients/{name}", parameter.grad)

    def after_step(self) -> None:
        """Record the parameters when it is time."""
        if self._parameters and self._is_due():
            for name, parameter in self._trained():
                self._record(f"parameters/{name}", parameter)

    def _is_due(self) -> bool:
        return self._every(self.trainer.iter) and is_main_process()

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for name, parameter in self.trainer.model.named_parameters():
            if parameter.requires_grad:
                yield name.removeprefix("module.").replace("_orig_mod.", ""), parameter

    def _record(self, name: str, tensor: torch.Tensor) -> None:
        local = getattr(tensor, "to_local", None)
        data = (tensor if local is None else local()).detach()
        data = data[torch.isfinite(data)]
        if data.numel():
            self.trainer.storage.put_histogram(name, data, self._bins)

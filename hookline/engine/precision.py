"""Numeric precision of a training step, as small objects that the one trainer calls."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

__all__ = ["BF16", "FP16", "FP32", "PRECISIONS", "TF32", "Precision", "build_precision"]

_AS_IT_IS: AbstractContextManager[None] = nullcontext()


class Precision:
    """How forward, backward and the optimizer step are done; this base class changes nothing."""

    name = "fp32"

    skips_overflow = False
    """Whether :meth:`step` itself leaves out steps whose gradients are not finite."""

    skipped = False
    """Whether the last :meth:`step` left its update out."""

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context in which the model is called."""
        return _AS_IT_IS

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of the loss, a scalar, to the parameters."""
        loss.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients to their true size, after the last backward of a step."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters."""
        optimizer.step()

    def discard(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradients after :meth:`unscale`, where a step is left out and :meth:`step` not called."""

    def metrics(self) -> dict[str, float]:
        """Return what is worth logging; asked once per writing period, so it may wait for the device."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""


class FP32(Precision):
    """Single precision; whether convolutions may use TF32 is left as torch has it."""


class TF32(Precision):
    """Single precision whose matrix products and convolutions may round their inputs to TF32 on NVIDIA GPUs."""

    name = "tf32"

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Allow TF32 inside the context, and put the setting back after it."""
        matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            torch.backends.cudnn.allow_tf32 = convolutions

    def backward(self, loss: torch.Tensor) -> None:
        """Do the backward pass with TF32 allowed."""
        with self.forward():
            loss.backward()


class BF16(Precision):
    """Forward pass under autocast to bfloat16; its range is that of fp32, so nothing is scaled.

    Args:
        device_type: where the model is, such as ``cuda``.
    """

    name = "bf16"

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type

    def forward(self) -> AbstractContextManager[Any]:
        """Return the autocast context."""
        return torch.autocast(self.device_type, torch.bfloat16)


class FP16(Precision):
    """Forward pass under autocast to float16, with a scaled loss so that small gradients survive.

    A step whose gradients overflow is left out by the scaler, which then lowers the scale; the iteration counts all
    the same, so schedules and periods are not moved. Such steps are counted in the metric ``skipped_steps``.

    Args:
        device_type: where the model is, such as ``cuda``.
        scaler: a scaler with other settings than torch's.
    """

    name = "fp16"
    skips_overflow = True

    def __init__(self, device_type: str, scaler: torch.amp.GradScaler | None = None) -> None:
        self.device_type = device_type
        self.scaler = torch.amp.GradScaler(device_type) if scaler is None else scaler
        self.skipped_steps = 0
        self._updated = False

    def forward(self) -> AbstractContextManager[Any]:
        """Return the autocast context."""
        return torch.autocast(self.device_type, torch.float16)

    def backward(self, loss: torch.Tensor) -> None:
        """Do the backward pass of the scaled loss."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, so that hooks and clipping see their true size."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters unless a gradient overflowed, then adapt the scale."""
        self._updated = False
        # The scaler itself waits for the verdict; whether it called the optimizer is known without asking the device.
        handle = optimizer.register_step_post_hook(self._note_update)
        try:
            self.scaler.step(optimizer)
        finally:
            handle.remove()
        self.scaler.update()
        self.skipped = not self._updated
        self.skipped_steps += self.skipped

    def discard(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the scaler begin anew with its scale as it is: what is left out here was no overflow of the scale."""
        self.scaler.update(self.scaler.get_scale())

    def _note_update(self, optimizer: torch.optim.Optimizer, *unused: Any) -> None:
        # A fused optimizer is always called and leaves the step out by itself; the others wait for the same verdict.
        found = getattr(optimizer, "found_inf", None)
        self._updated = found is None or not found.item()

    def metrics(self) -> dict[str, float]:
        """Return the scale and the number of steps left out so far."""
        return {"grad_scale": self.scaler.get_scale(), "skipped_steps": float(self.skipped_steps)}

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state and the count of skipped steps."""
        return {"scaler": self.scaler.state_dict(), "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; the state of another precision leaves the scaler fresh."""
        if "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
            self.skipped_steps = int(state["skipped_steps"])


PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


def build_precision(name: str, device_type: str = "cpu") -> Precision:
    """Make the precision of that name.

    Args:
        name: one of :data:`PRECISIONS`.
        device_type: where the model is.

    Raises:
        ValueError: if there is no such precision; names the nearest one.
    """
    if name == "fp32":
        return FP32()
    if name == "tf32":
        return TF32()
    if name == "bf16":
        return BF16(device_type)
    if name == "fp16":
        return FP16(device_type)
    near = difflib.get_close_matches(str(name), PRECISIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(PRECISIONS)}"
    raise ValueError(f"unknown precision {name!r}; {hint}")

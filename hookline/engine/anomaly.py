"""Where a number that is not finite comes from: the batch, a module's output, or a gradient.

Nothing here runs while all is well. When a step has gone wrong, its batches are run again through the same weights,
with every module watched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from hookline.engine.batches import file_names
from hookline.engine.checkpoint_match import unwrap_model
from hookline.engine.events import EventStorage
from hookline.engine.losses import as_losses, sum_losses

__all__ = ["explain_batch", "gradient_table", "non_finite_parameters", "tensors_in"]

SHOWN = 10  # gradients

logger = logging.getLogger(__name__)


def explain_batch(trainer: Any, batch: Any, micro: int = 0) -> list[str]:
    """Run a batch of the current step again and tell where the first number that is not finite appears.

    The weights, gradients and buffers stay as they are. All ranks must call this together where the model has layers
    that talk to other ranks.

    Args:
        trainer: a :class:`~hookline.engine.simple_trainer.SimpleTrainer` that has not yet updated the weights.
        batch: what the model was called with.
        micro: which of the step's batches it is.

    Returns:
        Lines of text; empty if everything was finite this time.
    """
    found = list(_in_batch(batch))
    model = unwrap_model(trainer.model)
    watch = _Watch(model)
    if trainer._seeder is not None:
        trainer._seeder.seed_torch(trainer.iter, micro)
    own_storage = EventStorage(trainer.iter)  # what the model puts was put already when the step was made
    with own_storage, kept_buffers(model), watch.installed(), trainer.precision.forward():
        losses = as_losses(model(batch))
        for name, loss in losses.items():
            if not bool(loss.isfinite().all()):
                watch.note(f"loss {name!r} is {_kind(loss)}")
        if not watch.lines:
            _backward(model, sum_losses(losses), watch)
    if watch.lines or found:
        files = ", ".join(map(str, file_names(batch))) or "(the samples have no file_name)"
        return [*found, *watch.lines, f"files of the batch: {files}"]
    return []


def gradient_table(model: nn.Module) -> list[str]:
    """Name the parameters with the largest gradients, those that are not finite first.

    Args:
        model: with gradients.
    """
    norms = {name: float(p.grad.float().norm()) for name, p in model.named_parameters() if p.grad is not None}
    if not norms:
        return []
    bad = [name for name, norm in norms.items() if not norm < float("inf")]
    ordered = [*bad, *sorted((name for name in norms if name not in bad), key=lambda name: -norms[name])]
    lines = [f"gradients: {len(bad)} of {len(norms)} are not finite; norms of the first {min(SHOWN, len(norms))}:"]
    return [*lines, *(f"  {name}: {norms[name]:.4g}" for name in ordered[:SHOWN])]


def non_finite_parameters(model: nn.Module) -> list[str]:
    """List the names of the parameters and buffers that are not finite."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [name for name, value in named if value.is_floating_point() and not bool(value.isfinite().all())]


def tensors_in(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Walk over the tensors in nested lists, tuples, dicts and objects with attributes.

    Args:
        value: where to look.
        depth: how far down.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, nn.Module | str | bytes):
        return
    elif depth:
        parts: Iterable[Any] = ()
        if isinstance(value, Mapping):
            parts = list(value.values())
        elif isinstance(value, list | tuple):
            parts = value
        elif hasattr(value, "__dict__"):
            parts = list(vars(value).values())
        for part in parts:
            yield from tensors_in(part, depth - 1)


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put the model's buffers, such as the statistics of batch norm, back at the end of the context."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


class _Watch:
    """Notes the first module that produced, or got as gradient of its output, what is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.lines: list[str] = []
        self._model = model
        self._running: list[tuple[str, nn.Module, Any]] = []  # modules that are being called, with their inputs
        self._is_batch_bad = False

    def note(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def installed(self) -> Iterator[None]:
        handles = []
        for name, module in self._model.named_modules():
            name = name or "(the whole model)"
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(partial(self._leave, name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        """What a module is given and is bad already, the one that calls it has computed."""
        bad = next(filter(_is_bad, tensors_in(inputs)), None)
        if bad is not None and not self._running:
            self._is_batch_bad = True
        elif bad is not None and not self.lines and not self._is_batch_bad:
            self.note(f"{_describe(*self._running[-1], bad)}; seen where it calls {name}")
        self._running.append((name, module, inputs))

    def _leave(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._running.pop()
        if self.lines:
            return
        bad = next(filter(_is_bad, tensors_in(output)), None)
        if bad is not None:
            self.note(_describe(name, module, inputs, bad))
            return
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(partial(self._look_back, name, module))

    def _look_back(self, name: str, module: nn.Module, gradient: torch.Tensor) -> None:
        if not self.lines and not bool(gradient.isfinite().all()):
            self.note(
                f"{name} ({type(module).__name__}) got {_kind(gradient)} in backward, in the gradient of its output: "
                "what is done with that output produced it"
            )


def _backward(model: nn.Module, total: torch.Tensor, watch: _Watch) -> None:
    """Compute this rank's gradients without touching those that are there."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if any(hasattr(parameter, "full_tensor") for _, parameter in named):
        return  # sharded parameters' gradients are made by hooks that would reduce them
    gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    if watch.lines:
        return
    modules = dict(model.named_modules())
    for (name, _), gradient in zip(named, gradients, strict=True):
        if gradient is not None and not bool(gradient.isfinite().all()):
            owner = name.rpartition(".")[0]
            kind = type(modules[owner]).__name__
            watch.note(f"{owner} ({kind}) produced {_kind(gradient)} in backward, in the gradient of {name}")
            return


def _in_batch(batch: Any) -> Iterator[str]:
    """Name the samples with numbers that are not finite."""
    for index, sample in enumerate(batch if isinstance(batch, Sequence) else [batch]):
        for key, value in sample.items() if isinstance(sample, Mapping) else [("", sample)]:
            for tensor in tensors_in(value):
                if _is_bad(tensor):
                    name = f" of {sample['file_name']}" if isinstance(sample, Mapping) and "file_name" in sample else ""
                    yield f"the batch itself holds {_kind(tensor)}: sample {index}{name}, {key or 'data'!r}"
                    break


def _describe(name: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> str:
    line = f"{name} ({type(module).__name__}) produced {_kind(output)} in forward"
    weights = [key for key, value in module.named_parameters() if not bool(value.isfinite().all())]
    if weights:
        return f"{line}; its weights are not finite: {', '.join(weights[:3])}"
    seen = [tensor for tensor in tensors_in(inputs) if tensor.is_floating_point()]
    if any(map(_is_bad, seen)):
        return f"{line}; its input was not finite already"
    largest = max((float(tensor.detach().abs().max()) for tensor in seen if tensor.numel()), default=None)
    return line if largest is None else f"{line}; the largest number in its input was {largest:.4g}"


def _is_bad(values: torch.Tensor) -> bool:
    return values.is_floating_point() and not bool(values.isfinite().all())


def _kind(values: torch.Tensor) -> str:
    """Say whether there are NaNs or infinities, and how many."""
    nans, infinities = int(values.isnan().sum()), int(values.isinf().sum())
    parts = [f"{count} x {name}" for count, name in ((nans, "NaN"), (infinities, "inf")) if count]
    return f"{' and '.join(parts)} (of {values.numel()} values)"

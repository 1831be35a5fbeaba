"""What happens to gradients between backward and the optimizer: clipping, and accumulation over batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from hookline.engine.shards import is_sharded, local_part, sharded_norm

__all__ = ["ClipGradNorm", "ClipGradValue", "GradientClipper", "build_clipper", "gradient_norm", "unsynchronized"]

_AS_IT_IS: AbstractContextManager[None] = nullcontext()


class GradientClipper(Protocol):
    """Anything that limits gradients in place when it is called with the parameters."""

    def __call__(self, parameters: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Clip, and return the norm before clipping where it is known: a scalar that stays on its device."""


class ClipGradNorm:
    """Scale gradients down so that their norm is at most ``max_norm``.

    Args:
        max_norm: the largest norm allowed, positive. With infinity the norm is only measured.
        norm_type: the p of the p-norm; infinity for the largest absolute value.
        per_parameter: limit the norm of every parameter by itself instead of the norm of all of them together.

    Raises:
        ValueError: if the limit or the p is not positive, or ``per_parameter`` not true or false.
    """

    def __init__(self, max_norm: float, norm_type: float = 2.0, *, per_parameter: bool = False) -> None:
        self.max_norm = _positive(max_norm, "max_norm")
        self.norm_type = _positive(norm_type, "norm_type")
        if not isinstance(per_parameter, bool):
            raise ValueError(f"per_parameter must be true or false, got {per_parameter!r}")
        self.per_parameter = per_parameter

    def __call__(self, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
        """Clip the gradients in place; of sharded ones the norm is that of all ranks' parts together.

        Returns:
            The norm of all gradients together before clipping, a scalar on the parameters' device.
        """
        if math.isfinite(self.max_norm) and not self.per_parameter:
            return self._clip(parameters)
        norm = gradient_norm(parameters, self.norm_type)
        if math.isfinite(self.max_norm):
            for parameter in parameters:
                self._clip([parameter])
        return norm

    def _clip(self, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not any(map(is_sharded, gradients)):
            return nn.utils.clip_grad_norm_(parameters, self.max_norm, self.norm_type)
        norm = gradient_norm(parameters, self.norm_type)
        nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        return norm


class ClipGradValue:
    """Limit every element of the gradients to [-clip_value, clip_value].

    Args:
        clip_value: the limit, positive.

    Raises:
        ValueError: if the limit is not positive and finite.
    """

    def __init__(self, clip_value: float) -> None:
        self.clip_value = _positive(clip_value, "clip_value")
        if not math.isfinite(self.clip_value):
            raise ValueError(f"clip_value must be finite, got {clip_value!r}; ClipGradNorm(inf) measures only")

    def __call__(self, parameters: Sequence[torch.Tensor]) -> torch.Tensor:
        """Clip the gradients in place.

        Returns:
            The 2-norm of all gradients together before clipping, a scalar on the parameters' device.
        """
        norm = gradient_norm(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if any(map(is_sharded, gradients)):
            for gradient in gradients:
                local_part(gradient).clamp_(-self.clip_value, self.clip_value)
        else:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        return norm


def build_clipper(clip: float | GradientClipper | None) -> GradientClipper | None:
    """Read the short form: a number is the largest norm of all gradients together.

    Args:
        clip: a number, something that clips, or None for no clipping.

    Raises:
        TypeError: if it is neither.
    """
    if clip is None or (callable(clip) and not isinstance(clip, type)):
        return clip
    if isinstance(clip, (int, float)) and not isinstance(clip, bool):
        return ClipGradNorm(clip)
    raise TypeError(f"grad_clip must be a number (largest norm), ClipGradNorm(...) or ClipGradValue(...), got {clip!r}")


def gradient_norm(parameters: Sequence[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """Measure the norm of all gradients together.

    Args:
        parameters: those without a gradient are left out.
        norm_type: the p of the p-norm; infinity for the largest absolute value.

    Returns:
        A scalar on the gradients' device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if any(map(is_sharded, gradients)):
        return sharded_norm(gradients, norm_type)
    return nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients], norm_type)


def unsynchronized(model: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which a wrapped model's backward sends no gradients to other ranks.

    All but the last of the batches that are accumulated run in it, so that ranks reduce once per optimizer step. Where
    a static graph is still to be learnt, in the first steps, every batch is reduced, which gives the same means.

    Args:
        model: any module; one that is neither wrapped for data parallelism nor fully sharded gets an idle context.
    """
    no_sync = getattr(model, "no_sync", None)
    if no_sync is not None:
        return _AS_IT_IS if _learns_graph(model) else no_sync()
    switch = getattr(model, "set_requires_gradient_sync", None)
    if switch is None or getattr(model, "reduces_every_batch", False):
        return _AS_IT_IS
    return _switched_off(switch)


def _learns_graph(model: Any) -> bool:
    """Tell whether DistributedDataParallel has yet to learn its static graph, as it does in its first backward passes.

    If one of them sends nothing, torch fails, or takes it for a part of the graph and from then on waits for it again
    before it sends anything. When all is learnt, the buckets of gradients have been rebuilt.
    """
    return getattr(model, "static_graph", False) and not getattr(model, "_has_rebuilt_buckets", False)


@contextmanager
def _switched_off(switch: Any) -> Iterator[None]:
    """Let a fully sharded model keep whole gradients meanwhile."""
    switch(False)
    try:
        yield
    finally:
        switch(True)


def _positive(limit: float, name: str) -> float:
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"{name} must be a positive number, got {limit!r}")
    return float(limit)

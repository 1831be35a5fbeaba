"""Activation checkpointing: what is inside of a block is computed again in the backward pass instead of being kept."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hookline.modeling.layers.norm import FrozenBatchNorm2d


class RecomputedSequential(nn.Sequential):
    """Blocks one behind the other that keep only their inputs for the backward pass.

    Gradients and buffers are those of `torch.nn.Sequential`, bit for bit where the blocks' own kernels are
    deterministic: draws are repeated, and running statistics are not updated a second time. A block that is computed
    again calls the forward hooks inside of it again too.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply the blocks."""
        for block in self:
            input = _recomputed(block, input)
        return input


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    learns = x.requires_grad or any(parameter.requires_grad for parameter in block.parameters())
    if not (learns and torch.is_grad_enabled()):
        return block(x)
    if torch.compiler.is_compiling():  # a compiled backward pass updates no buffers; where it does, it is refused
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))


@cache
def compiled_backward_keeps_buffers() -> bool:
    """Tell whether a compiled backward pass that computes a block again leaves running statistics as they are.

    Older torch updates them a second time there: 2.6 to 2.8 do, 2.14 does not. One small layer is compiled to see.
    """
    norm = nn.BatchNorm1d(1, device="cpu")

    def forward(x: Tensor) -> Tensor:
        return _recomputed(norm, x)

    torch.compile(forward, backend="aot_eager")(torch.tensor([[0.0], [1.0]], device="cpu")).sum().backward()
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked.item() == 1


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _with_scratch_buffers(block)


@contextmanager
def _with_scratch_buffers(block: nn.Module) -> Iterator[None]:
    """Let a block update copies of its buffers, such as running statistics."""
    modules = [module for module in block.modules() if module._buffers and not isinstance(module, FrozenBatchNorm2d)]
    before = [dict(module._buffers) for module in modules]
    try:
        for module in modules:
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for module, buffers in zip(modules, before, strict=True):
            module._buffers.update(buffers)

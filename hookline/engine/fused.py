"""Fused optimizers: one kernel for all parameters, where the device has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from hookline.engine.shards import is_sharded

__all__ = ["fuses", "keep_implementation"]

# On the CPU fused kernels are faster too, but their last digits differ and the step gains less than a percent.
DEVICES = ("cuda",)
# Others, such as Adagrad, take the argument too, but some versions of torch then refuse parameters on a GPU.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
SHARDED = (torch.optim.Adam, torch.optim.AdamW)
IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")


def fuses(optimizer: Callable[..., Any], parameters: Iterable[torch.Tensor]) -> bool:
    """Tell whether an optimizer shall be made with ``fused=True``.

    Args:
        optimizer: the class, or what makes one.
        parameters: all that it gets.

    Returns:
        Whether it is Adam, AdamW or SGD, or a subclass that knows the argument, and all parameters are floating-point
        numbers on a GPU; of sharded ones torch can fuse the steps of Adam and AdamW only.
    """
    parameters = list(parameters)
    if not (isinstance(optimizer, type) and issubclass(optimizer, FUSED)):
        return False
    knows = "fused" in inspect.signature(optimizer).parameters
    shards = sum(map(is_sharded, parameters))
    if shards and not (shards == len(parameters) and optimizer in SHARDED):
        return False
    return knows and all(p.device.type in DEVICES and p.is_floating_point() for p in parameters)


def keep_implementation(optimizer: torch.optim.Optimizer) -> None:
    """Let a restored optimizer stay fused or not, whichever it is now; torch takes that from the checkpoint.

    So a checkpoint of a GPU continues on the CPU and the other way, and steps counters lie where they are needed.

    Args:
        optimizer: gets a hook for its ``load_state_dict``.
    """
    optimizer.register_load_state_dict_pre_hook(_with_own_implementation)


def _with_own_implementation(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [
        {**saved, **{key: own[key] for key in IMPLEMENTATIONS if key in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=False)
    ]
    return {**state, "param_groups": groups + state["param_groups"][len(groups) :]}

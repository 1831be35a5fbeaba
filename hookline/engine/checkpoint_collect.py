"""Gather what one checkpoint file holds."""

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import torch
from torch import nn

from hookline import __version__
from hookline.distributed import get_world_size
from hookline.engine.checkpoint_match import unwrap_model, without_wrapper_prefix
from hookline.engine.checkpoint_state import plain_tree

__all__ = ["collect_state"]


def collect_state(
    model: nn.Module,
    parts: Mapping[str, Any] | None,
    iteration: int | None,
    meta: Mapping[str, Any],
    take: Callable[[torch.Tensor, str], torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Gather and check the content of a checkpoint; anything that is not plain is a CheckpointError with its key path.

    Args:
        model: The model; wrappers are looked through.
        parts: What is saved beside the model, by key; None for a slim file of the model alone.
        iteration: Last finished step, if there is one.
        meta: Plain values to keep under "meta", beside versions, time and world size.
        take: As in `plain_tree`.

    Returns:
        New containers around the live tensors.
    """
    state: dict[str, Any] = {"model": without_wrapper_prefix(unwrap_model(model).state_dict())}
    if iteration is not None:
        state["iteration"] = int(iteration)
    for key, part in (parts or {}).items():
        state[key] = part.state_dict()
    state["meta"] = {
        "hookline": __version__,
        "torch": str(torch.__version__),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "world_size": get_world_size(),
        "slim": parts is None,
        **meta,
    }
    return plain_tree(state, take=take)

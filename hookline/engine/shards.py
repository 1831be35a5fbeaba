"""Tensors of which each rank holds a part: torch's DTensors, as fully sharded models have them.

All are cut along the first axis into one part a rank, in the order of the ranks; the parts of the last ranks may be
smaller or empty. DTensors are told by their methods, so that training without them need not import them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["empty_shard_like", "is_sharded", "local_bytes", "local_part", "sharded_norm", "sharding_of", "take_shard"]


def is_sharded(tensor: Any) -> bool:
    """Tell whether a tensor is one of which this rank holds a part."""
    return isinstance(tensor, torch.Tensor) and hasattr(tensor, "to_local")


def local_part(tensor: Any) -> torch.Tensor:
    """Return the part of this rank, the tensor itself where it is whole.

    Args:
        tensor: any tensor; the part shares its memory.
    """
    return tensor.to_local() if is_sharded(tensor) else tensor


def sharding_of(model: nn.Module) -> Any:
    """Return the first sharded parameter, which shows how all are cut; None for a model that is not sharded.

    Args:
        model: any module.
    """
    return next((parameter for parameter in model.parameters() if is_sharded(parameter)), None)


def take_shard(full: torch.Tensor, like: Any) -> torch.Tensor:
    """Cut this rank's part out of a whole tensor, without communication.

    Args:
        full: the same on all ranks, on any device.
        like: a sharded tensor whose ranks, device and axis count; its shape and type may be others.

    Returns:
        A sharded tensor with the values and the type of ``full``.
    """
    shard = empty_shard_like(full, like)
    local = shard.to_local()
    start = _start(full.shape[0], like.device_mesh)
    local.copy_(full.detach()[start : start + local.shape[0]])
    return shard


def empty_shard_like(full: torch.Tensor, like: Any) -> Any:
    """Make a sharded tensor without values.

    Args:
        full: gives shape and type; may be on the meta device.
        like: a sharded tensor whose ranks, device and axis count.
    """
    from torch.distributed.tensor import DTensor, Shard

    mesh, device = like.device_mesh, like.to_local().device
    start, part = _start(full.shape[0], mesh), _part(full.shape[0], mesh)
    rows = max(0, min(part, full.shape[0] - start))
    local = torch.empty((rows, *full.shape[1:]), dtype=full.dtype, device=device)
    strides = torch.empty(full.shape, device="meta").stride()
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=full.shape, stride=strides)


def sharded_norm(tensors: Sequence[Any], norm_type: float) -> torch.Tensor:
    """Compute the norm of all tensors together, whole, with a single reduction; every rank must call it.

    Args:
        tensors: at least one sharded tensor, and any others, which must be the same on all ranks.
        norm_type: the p of the p-norm; infinity for the largest absolute value.

    Returns:
        The p-th root of the sum of ``|x|^p``: a scalar, the same on all ranks, on the device that communicates.
    """
    mesh = next(tensor for tensor in tensors if is_sharded(tensor)).device_mesh
    device = torch.device(mesh.device_type)
    sharded = _norm([tensor.to_local() for tensor in tensors if is_sharded(tensor)], norm_type, device)
    whole = _norm([tensor for tensor in tensors if not is_sharded(tensor)], norm_type, device)
    if math.isinf(norm_type):
        dist.all_reduce(sharded, op=dist.ReduceOp.MAX, group=mesh.get_group())
        return torch.maximum(sharded, whole)
    powers = sharded.pow(norm_type)
    dist.all_reduce(powers, group=mesh.get_group())
    return (powers + whole.pow(norm_type)).pow(1.0 / norm_type)


def local_bytes(tensors: Iterable[Any]) -> int:
    """Count the bytes that this rank holds of some tensors.

    Args:
        tensors: sharded ones and others.
    """
    return sum(local_part(tensor).nbytes for tensor in tensors)


def _norm(tensors: list[torch.Tensor], norm_type: float, device: torch.device) -> torch.Tensor:
    filled = [tensor for tensor in tensors if tensor.numel()]  # an empty part has no largest value
    if not filled:
        return torch.zeros((), device=device)
    return nn.utils.get_total_norm(filled, norm_type).to(device, torch.float32)


def _part(rows: int, mesh: Any) -> int:
    """How many rows each rank but the last ones holds, as `torch.chunk` cuts."""
    return -(-rows // mesh.size())


def _start(rows: int, mesh: Any) -> int:
    return min(rows, _part(rows, mesh) * mesh.get_local_rank())

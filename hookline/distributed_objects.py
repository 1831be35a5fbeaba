"""Python objects over gloo, in pieces.

An object crosses the network pickled. A large one does so piece by piece: gloo copies what it moves, so no rank needs
a second copy of everything at once.
"""

import io
import pickle
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["CHUNK_BYTES", "all_gather", "broadcast", "gather"]

CHUNK_BYTES = 16 << 20


def all_gather(obj: Any, group: dist.ProcessGroup) -> list[Any]:
    """Collect one object of each rank on every rank.

    Objects of similar size go in one collective; where padding to the largest would be waste, one after the other.

    Args:
        obj: Anything that pickles.
        group: A gloo group.

    Returns:
        Copies of the objects in rank order.
    """
    data = _to_bytes(obj)
    sizes = _all_sizes(data, group)
    largest = max(sizes)
    if largest <= CHUNK_BYTES and largest * len(sizes) <= max(CHUNK_BYTES, 2 * sum(sizes)):
        slots = [torch.empty(largest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(slots, torch.nn.functional.pad(data, (0, largest - data.numel())), group=group)
    else:
        slots = [_spread(data, place, size, group) for place, size in enumerate(sizes)]
    return [_from_bytes(slot, size) for slot, size in zip(slots, sizes, strict=True)]


def gather(obj: Any, dst: int, group: dist.ProcessGroup) -> list[Any]:
    """Collect one object of each rank on one rank, which holds one raw buffer besides the objects.

    Args:
        obj: Anything that pickles.
        dst: Global rank that receives.
        group: A gloo group.

    Returns:
        Copies of the objects in rank order on rank `dst`, an empty list on the others.
    """
    data = _to_bytes(obj)
    sizes = _all_sizes(data, group)
    if dist.get_rank() != dst:
        for piece in _pieces(data):
            dist.send(piece, dst, group=group)
        return []
    ranks = dist.get_process_group_ranks(group)
    return [
        _from_bytes(data if src == dst else _receive(src, size, group), size)
        for src, size in zip(ranks, sizes, strict=True)
    ]


def broadcast(obj: Any, src: int, group: dist.ProcessGroup) -> Any:
    """Give every rank the object of one rank.

    Args:
        obj: Anything that pickles; only that of rank `src` counts.
        src: Global rank that sends.
        group: A gloo group.

    Returns:
        A copy of the object of rank `src`.
    """
    data = _to_bytes(obj) if dist.get_rank() == src else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([data.numel()])
    dist.broadcast(size, src, group=group)
    return _from_bytes(_spread(data, dist.get_group_rank(group, src), int(size), group), int(size))


def _to_bytes(obj: Any) -> torch.Tensor:
    buffer = io.BytesIO()
    pickle.dump(obj, buffer, protocol=pickle.HIGHEST_PROTOCOL)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _from_bytes(data: torch.Tensor, size: int) -> Any:
    return pickle.loads(data.numpy().data[:size])


def _all_sizes(data: torch.Tensor, group: dist.ProcessGroup) -> list[int]:
    sizes = [torch.empty(1, dtype=torch.int64) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([data.numel()]), group=group)
    return [int(size) for size in sizes]


def _pieces(data: torch.Tensor) -> Iterator[torch.Tensor]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, data.numel(), CHUNK_BYTES))


def _receive(src: int, size: int, group: dist.ProcessGroup) -> torch.Tensor:
    data = torch.empty(size, dtype=torch.uint8)
    for piece in _pieces(data):
        dist.recv(piece, src, group=group)
    return data


def _spread(data: torch.Tensor, place: int, size: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Give all the bytes of the group's member `place`; the other members' `data` is not looked at."""
    if dist.get_rank(group) != place:
        data = torch.empty(size, dtype=torch.uint8)
    for piece in _pieces(data):
        dist.broadcast(piece, dist.get_global_rank(group, place), group=group)
    return data

"""Rank, world size, barrier, object collectives and one flag that all ranks agree on.

Everything here works without a process group, where it describes a world of one process. Python objects, flags and
barriers travel over gloo, never over NCCL: a rank that waits for another one's CPU work (metrics, writing) then
occupies no device and wakes no NCCL watchdog. Which gloo groups these are, and how long a rank waits there, is told by
`hookline.distributed_groups`.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hookline import distributed_objects as objects
from hookline.distributed_groups import WaitedTooLongError, gloo_group, set_timeouts, waiting

__all__ = [
    "WaitedTooLongError",
    "all_gather",
    "any_rank",
    "any_rank_later",
    "broadcast",
    "cpu_group",
    "gather",
    "get_local_rank",
    "get_local_size",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "is_on_cpu",
    "reduce_dict",
    "set_local_place",
    "set_timeouts",
    "shared_random_seed",
    "synchronize",
]

_local_place: tuple[int, int] | None = None
_on_cpu = False


def get_rank() -> int:
    """Return this process's number among all processes, 0 without a process group."""
    return dist.get_rank() if _has_group() else 0


def get_world_size() -> int:
    """Return the number of processes of the run, 1 without a process group."""
    return dist.get_world_size() if _has_group() else 1


def get_local_rank() -> int:
    """Return this process's number among the processes of its machine, 0 without a process group.

    Where a group exists, `launch` or torchrun must have told the place on the machine; else it is a RuntimeError.
    """
    return _place_on_machine()[0]


def get_local_size() -> int:
    """Return the number of the run's processes on this machine, 1 without a process group.

    Where a group exists, `launch` or torchrun must have told the place on the machine; else it is a RuntimeError.
    """
    return _place_on_machine()[1]


def is_on_cpu() -> bool:
    """Tell whether this process was started, as one of several, to run on the CPU, whatever GPUs there are."""
    return _on_cpu


def set_local_place(rank: int | None, size: int | None = None, *, on_cpu: bool = False) -> None:
    """Record this process's place on its machine; `launch` calls this, with None to forget it.

    Args:
        rank: Number among the processes of this machine, 0 <= rank < size.
        size: Number of the run's processes on this machine.
        on_cpu: Whether they are to run on the CPU, whatever GPUs there are.

    Raises:
        ValueError: If the rank does not fit the size.
    """
    global _local_place, _on_cpu
    if rank is None:
        _local_place, _on_cpu = None, False
        return
    if size is None or not 0 <= rank < size:
        raise ValueError(f"local rank {rank} does not fit a local size of {size}: expected 0 <= rank < size")
    _local_place, _on_cpu = (rank, size), on_cpu


def is_main_process() -> bool:
    """Tell whether this is rank 0, the one that writes files."""
    return get_rank() == 0


def synchronize(timeout: timedelta | None = None) -> None:
    """Wait patiently on gloo until every rank has come here, whatever one of them does alone before.

    Args:
        timeout: Wait at most this long; the RuntimeError of rank 0 then names the ranks that did not come. Without
            it the time-out of patient waits counts.
    """
    if get_world_size() == 1:
        return
    if timeout is not None:
        dist.monitored_barrier(group=gloo_group(None), timeout=timeout, wait_all_ranks=True)
        return
    with waiting(patient=True):
        dist.barrier(group=gloo_group(None, patient=True))


@contextlib.contextmanager
def cpu_group() -> Iterator[dist.ProcessGroup | None]:
    """Give a group of all ranks that moves CPU tensors and objects while the block runs, None without a process group.

    Ranks wait patiently there: what they write differs in size. It serves code that makes collectives of its own; all
    must ask for it together the first time.
    """
    if not _has_group():
        yield None
        return
    with waiting(patient=True):
        yield gloo_group(None, patient=True)


def any_rank(flag: bool, *, patient: bool = False) -> bool:
    """Tell every rank whether the flag is set on at least one of them.

    It costs one reduction of four bytes on gloo and does not touch a device, so it can be asked in every step.

    Args:
        flag: This rank's opinion.
        patient: Wait as long as for what a rank does alone.

    Returns:
        True on all ranks or False on all ranks.
    """
    return any_rank_later(flag, patient=patient)()


def any_rank_later(flag: bool, *, patient: bool = False) -> Callable[[], bool]:
    """Ask the question of :func:`any_rank` now and fetch the answer later; the work between hides the reduction.

    Args:
        flag: This rank's opinion.
        patient: Wait as long as for what a rank does alone.

    Returns:
        A function to be called once on every rank, which gives the answer. Other collectives may come between.
    """
    if get_world_size() == 1:
        return lambda: bool(flag)
    votes = torch.tensor([int(bool(flag))], dtype=torch.int32)
    with waiting(patient=patient):
        group = gloo_group(None, patient=patient)
        work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=group, async_op=True)
    assert work is not None

    def answer() -> bool:
        with waiting(patient=patient):
            work.wait()
        return bool(votes.item())

    return answer


def all_gather(obj: Any, group: dist.ProcessGroup | None = None, *, patient: bool = False) -> list[Any]:
    """Collect one object of each rank on every rank.

    Args:
        obj: Anything that pickles; it may differ in size between ranks.
        group: The ranks that take part, all by default.
        patient: Wait as long as for what a rank does alone.

    Returns:
        The objects in rank order; this rank's own one is a copy too, unless it is alone.
    """
    if _group_size(group) == 1:
        return [obj]
    with waiting(patient=patient):
        return objects.all_gather(obj, gloo_group(group, patient=patient))


def gather(obj: Any, dst: int = 0, group: dist.ProcessGroup | None = None, *, patient: bool = True) -> list[Any]:
    """Collect one object of each rank on one rank; it waits patiently, since ranks rarely are ready together.

    Args:
        obj: Anything that pickles; it may differ in size between ranks.
        dst: Global rank that receives.
        group: The ranks that take part, all by default.
        patient: Wait as long as for what a rank does alone.

    Returns:
        The objects in rank order on rank `dst`, an empty list on the others.
    """
    if _group_size(group) == 1:
        return [obj]
    with waiting(patient=patient):
        return objects.gather(obj, dst, gloo_group(group, patient=patient))


def broadcast(obj: Any, src: int = 0, group: dist.ProcessGroup | None = None, *, patient: bool = True) -> Any:
    """Give every rank the object of one rank, which the others patiently wait for.

    Args:
        obj: Anything that pickles; only that of rank `src` counts.
        src: Global rank that sends.
        group: The ranks that take part, all by default.
        patient: Wait as long as for what a rank does alone.

    Returns:
        The object of rank `src`.
    """
    if _group_size(group) == 1:
        return obj
    with waiting(patient=patient):
        return objects.broadcast(obj, src, gloo_group(group, patient=patient))


def reduce_dict(values: Mapping[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Add or average scalar tensors over all ranks with one collective.

    Args:
        values: Scalar tensors, the same keys on every rank and one device for all. CUDA tensors are reduced on their
            device, CPU tensors on gloo.
        average: Divide by the number of ranks.

    Returns:
        The reduced values on every rank, in float32 or wider, in the order of the given keys.
    """
    if not values or get_world_size() == 1:
        return dict(values)
    names = sorted(values)
    with torch.no_grad():
        stacked = torch.stack([values[name].detach().reshape(()) for name in names])
        if stacked.dtype != torch.float64:
            stacked = stacked.float()
        with waiting():
            dist.all_reduce(stacked, group=None if stacked.is_cuda else gloo_group(None))
        if average:
            stacked /= get_world_size()
    reduced = dict(zip(names, stacked.unbind(), strict=True))
    return {name: reduced[name] for name in values}


def shared_random_seed() -> int:
    """Draw a seed that all ranks share.

    Returns:
        A number in [0, 2**31), drawn on rank 0 from torch's global generator, so that it repeats where that is seeded.
    """
    return int(broadcast(int(torch.randint(2**31, ()))))


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _group_size(group: dist.ProcessGroup | None) -> int:
    return dist.get_world_size(group) if _has_group() else 1


def _place_on_machine() -> tuple[int, int]:
    if _local_place is not None:
        return _local_place
    if not _has_group():
        return 0, 1
    if "LOCAL_RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    raise RuntimeError(
        "a process group exists, but this process's place on its machine is not known: start it by "
        "hookline.engine.launch or torchrun, or call hookline.distributed.set_local_place(rank, size)"
    )

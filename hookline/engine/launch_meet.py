"""The rendezvous: a roll call in the store that the starter of machine 0 serves, before the first collective."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

from hookline.engine.launch_plan import LaunchError, RendezvousError
from hookline.engine.launch_store import RUN, Notice, keep_quiet, place_name, reach_store

__all__ = ["connecting", "explained", "meet", "period_s", "wait_for_connected"]

_SPREAD_S = 0.5
_PERIOD_S = 0.05
_PERIOD_S_PER_RANK = 0.001  # all together look at most 1000 times a second, however many they are
_REFUSED = "hookline/refused"


def meet(
    address: tuple[str, int],
    rank: int,
    world_size: int,
    means: str,
    timeout: timedelta,
    store: dist.Store | None = None,
    run: str = "",
    say: Callable[[str], object] = keep_quiet,
    deadline: float | None = None,
) -> dist.Store:
    """Wait until all ranks have come and agree on what they are; the error names those that have not.

    Args:
        address: Host and port of the store.
        rank: This rank.
        world_size: How many are expected.
        means: What all of them must use, such as "GPUs by nccl".
        timeout: How long to wait.
        store: The store, if it is open already.
        run: The name of the run where others may have the same address, else "".
        say: Called now and then with what is waited for.
        deadline: When the time is over, by `time.monotonic`; by default it begins now.

    Returns:
        The store.

    Raises:
        LaunchError: On all ranks, if a rank comes twice or they differ; on this one, if it is another run's store.
        RendezvousError: If the store cannot be reached, is lost, or a rank does not come.
    """
    deadline = time.monotonic() + timeout.total_seconds() if deadline is None else deadline
    store = store if store is not None else reach_store(address, deadline, timeout, say)
    with explained(address, rank):
        if run:
            _check_run(store, address, run)
        _register(store, place_name(address), rank, world_size, means)
        notice = Notice(lambda: say(f"{place_name(address)}: {_who_is_missing(store, world_size)}"))
        if not _all_come(store, "rank", rank, world_size, deadline, notice if rank == 0 else None):
            within = f" within {timeout.total_seconds():g} s"
            raise RendezvousError(f"{place_name(address)}: {_who_is_missing(store, world_size, within)}")
    return store


def wait_for_connected(
    store: dist.Store, address: tuple[str, int], rank: int, world_size: int, timeout: timedelta
) -> None:
    """Wait until all ranks have built the process group: one that went ahead and left would break the others' attempt.

    Args:
        store: The store.
        address: Its host and port.
        rank: This rank.
        world_size: How many are expected.
        timeout: How long to wait.

    Raises:
        RendezvousError: If a rank does not get so far.
    """
    with explained(address, rank):
        if not _all_come(store, "connected", rank, world_size, time.monotonic() + timeout.total_seconds()):
            raise RendezvousError(_unconnected(address, world_size, timeout))


@contextlib.contextmanager
def connecting(address: tuple[str, int], world_size: int, timeout: timedelta) -> Iterator[None]:
    """Explain what goes wrong while the ranks, which have met, connect to each other.

    Args:
        address: Host and port of the store.
        world_size: All ranks.
        timeout: How long they may take.

    Raises:
        RendezvousError: Instead of an error of gloo, NCCL or the store.
    """
    try:
        yield
    except RuntimeError as error:
        raise RendezvousError(_unconnected(address, world_size, timeout, str(error).split("\n")[0])) from error


def _unconnected(address: tuple[str, int], world_size: int, timeout: timedelta, reason: str = "") -> str:
    return (
        f"{place_name(address)}: all {world_size} ranks came, but they could not connect to each other within "
        f"{timeout.total_seconds():g} s{reason and f' ({reason})'}; can the machines reach each other on all ports? "
        "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME choose the network"
    )


def _all_come(
    store: dist.Store, what: str, rank: int, world_size: int, deadline: float, notice: Notice | None = None
) -> bool:
    """Note that this rank is so far, and wait for the others until the deadline."""
    store.set(f"hookline/{what}/{rank}", "1")
    if store.add(f"hookline/{what}s", 1) == world_size:
        store.set(f"hookline/{what}s/all", "1")
    while not store.check([f"hookline/{what}s/all"]):
        if store.check([_REFUSED]):
            _refuse(store.get(_REFUSED).decode(), world_size)
        if time.monotonic() > deadline:
            return False
        if notice is not None:
            notice.waited()
        time.sleep(period_s(world_size))
    return True


def period_s(world_size: int) -> float:
    """Return how long a rank pauses between two looks into the store, in seconds.

    Args:
        world_size: All ranks.
    """
    return max(_PERIOD_S, _PERIOD_S_PER_RANK * world_size)


@contextlib.contextmanager
def explained(address: tuple[str, int], rank: int) -> Iterator[None]:
    """Say that the store is lost, instead of an error of torch.

    Args:
        address: Host and port of the store.
        rank: This rank.

    Raises:
        RendezvousError: If it is.
    """
    try:
        yield
    except dist.DistError as error:
        raise RendezvousError(
            f"{place_name(address)}: rank {rank} lost it while it waited for the others; machine 0 has ended "
            f"({str(error).splitlines()[0]})"
        ) from None


def _check_run(store: dist.Store, address: tuple[str, int], run: str) -> None:
    """Leave another run's store alone.

    Raises:
        LaunchError: If it is one.
    """
    found = store.get(RUN).decode()
    if found != run:
        raise LaunchError(
            f"{place_name(address)}: there another run meets ({found or 'without a name'}), this one is {run}: give "
            "this one a port of its own by MASTER_PORT or --dist-url"
        )


def _register(store: dist.Store, place: str, rank: int, world_size: int, means: str) -> None:
    """Note that this rank has come; what is wrong ends the ranks that wait, too.

    Raises:
        LaunchError: If it comes twice or expects something else than the others.
    """
    expected = f"{world_size} ranks on {means}"
    agreed = store.compare_set("hookline/plan", "", f"{expected} (rank {rank})").decode()
    problem = ""
    if agreed.rpartition(" (")[0] != expected:
        problem = (
            f"rank {rank} expects {expected}, another one expects {agreed}: give all machines the same "
            "--num-machines and the same --num-gpus, or --num-procs for the CPU"
        )
    elif store.add(f"hookline/times/{rank}", 1) > 1:
        problem = f"rank {rank} came twice; give each machine its own --machine-rank (NODE_RANK, RANK)"
    if problem:
        store.set(_REFUSED, f"{place}: {problem}")
        _refuse(f"{place}: {problem}", world_size)


def _refuse(message: str, world_size: int) -> NoReturn:
    # this process may serve the store, in which the others have yet to see it
    time.sleep(max(_SPREAD_S, 2 * period_s(world_size)))
    raise LaunchError(message)


def _who_is_missing(store: dist.Store, world_size: int, within: str = "") -> str:
    missing = [rank for rank in range(world_size) if not store.check([f"hookline/rank/{rank}"])]
    return f"{world_size - len(missing)} of {world_size} ranks came{within}, missing: {', '.join(map(str, missing))}"

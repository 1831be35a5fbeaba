"""The rendezvous: a store that the starter of machine 0 serves, and a roll call before the first collective."""

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

from hookline.engine.launch_plan import LaunchError, RendezvousError

__all__ = [
    "connecting",
    "meet",
    "serve_store",
    "torchrun_store",
    "wait_for_connected",
]

_SPREAD_S = 0.5
_REFUSED = "hookline/refused"
_RUN = "hookline/run"
_BACKLOG = 4096  # all ranks come at once


def serve_store(
    address: tuple[str, int] | None, timeout: timedelta = timedelta(minutes=5), run: str = ""
) -> tuple[dist.TCPStore, tuple[str, int]]:
    """Open the store where the ranks of a run meet; it lives as long as the returned object.

    Args:
        address: Host and port; None for a free port of this machine. The port is held from here on, so that no other
            program can take it before the ranks use it.
        timeout: How long to try to reach this machine by its own address, which DNS may not know yet.
        run: The name of the run, where it has one.

    Returns:
        The store, and its host and port.

    Raises:
        LaunchError: If the port is in use or the host is not this machine's.
    """
    if address is None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()[:2]
    else:
        listener = _listener(address[1])
        with contextlib.closing(listener):
            _reach_oneself(address, timeout)
            listener = listener.dup()
    # it connects to itself by the host's name, deaf to Ctrl-C: hence the attempt before
    store = dist.TCPStore(
        address[0],
        address[1],
        is_master=True,
        wait_for_workers=False,
        timeout=timeout,
        master_listen_fd=listener.detach(),
    )
    store.set(_RUN, run)
    return store, address


def _listener(port: int) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        raise LaunchError(
            f"port {port} {reason} on this machine: choose another one (--dist-url, MASTER_PORT), or --dist-url "
            "auto for a free one on a single machine. If another machine of this run was started here as machine 0, "
            "give this one its own --machine-rank"
        ) from None


def _reach_oneself(address: tuple[str, int], timeout: timedelta) -> None:
    try:
        _try_to_reach(address, time.monotonic() + timeout.total_seconds())
    except OSError as error:
        raise LaunchError(
            f"machine 0 cannot reach itself at {address[0]}:{address[1]} within {timeout.total_seconds():g} s "
            f"({error}): is {address[0]} its own address? --dist-url or MASTER_ADDR must name the machine that is "
            "started as machine 0"
        ) from None


def torchrun_store(address: tuple[str, int], timeout: timedelta) -> dist.Store:
    """Open the store that torchrun gives its processes.

    Args:
        address: Its host and port, for the message.
        timeout: How long to wait for it.

    Returns:
        The store, with keys of its own for each restart.

    Raises:
        RendezvousError: If it cannot be reached.
    """
    try:
        return next(iter(dist.rendezvous("env://", timeout=timeout)))[0]
    except dist.DistError as error:
        raise RendezvousError(f"{_place(address)} of torchrun: {str(error).splitlines()[0]}") from None


def meet(
    address: tuple[str, int],
    rank: int,
    world_size: int,
    backend: str,
    timeout: timedelta,
    store: dist.Store | None = None,
    run: str = "",
) -> dist.Store:
    """Wait until all ranks have come and agree on what they are; the error names those that have not.

    Args:
        address: Host and port of the store.
        rank: This rank.
        world_size: How many are expected.
        backend: What all of them must use.
        timeout: How long to wait.
        store: The store, if it is open already.
        run: The name of the run where others may have the same address, else "".

    Returns:
        The store.

    Raises:
        LaunchError: On all ranks, if a rank comes twice or they differ; on this one, if it is another run's store.
        RendezvousError: If the store cannot be reached, is lost, or a rank does not come.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    store = store if store is not None else _client(address, deadline, timeout)
    with _explained(address, rank):
        if run:
            _check_run(store, address, run)
        _register(store, _place(address), rank, f"{world_size} ranks on {backend}")
        if not _all_come(store, "rank", rank, world_size, deadline):
            raise RendezvousError(f"{_place(address)}: {_who_is_missing(store, world_size, timeout)}")
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
    with _explained(address, rank):
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
        f"{_place(address)}: all {world_size} ranks came, but they could not connect to each other within "
        f"{timeout.total_seconds():g} s{reason and f' ({reason})'}; can the machines reach each other on all ports? "
        "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME choose the network"
    )


def _all_come(store: dist.Store, what: str, rank: int, world_size: int, deadline: float) -> bool:
    """Note that this rank is so far, and wait for the others until the deadline."""
    store.set(f"hookline/{what}/{rank}", "1")
    if store.add(f"hookline/{what}s", 1) == world_size:
        store.set(f"hookline/{what}s/all", "1")
    while not store.check([f"hookline/{what}s/all"]):
        if store.check([_REFUSED]):
            _refuse(store.get(_REFUSED).decode())
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def _explained(address: tuple[str, int], rank: int) -> Iterator[None]:
    try:
        yield
    except dist.DistError as error:
        raise RendezvousError(
            f"{_place(address)}: rank {rank} lost it while it waited for the others; machine 0 has ended "
            f"({str(error).splitlines()[0]})"
        ) from None


def _check_run(store: dist.Store, address: tuple[str, int], run: str) -> None:
    """Leave another run's store alone.

    Raises:
        LaunchError: If it is one.
    """
    found = store.get(_RUN).decode()
    if found != run:
        raise LaunchError(
            f"{_place(address)}: there another run meets ({found or 'without a name'}), this one is {run}: give this "
            "one a port of its own by MASTER_PORT or --dist-url"
        )


def _register(store: dist.Store, place: str, rank: int, expected: str) -> None:
    """Note that this rank has come; what is wrong ends the ranks that wait, too.

    Raises:
        LaunchError: If it comes twice or expects something else than the others.
    """
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
        _refuse(f"{place}: {problem}")


def _refuse(message: str) -> NoReturn:
    time.sleep(_SPREAD_S)  # this process may serve the store, in which the others have yet to see it
    raise LaunchError(message)


def _who_is_missing(store: dist.Store, world_size: int, timeout: timedelta) -> str:
    missing = [rank for rank in range(world_size) if not store.check([f"hookline/rank/{rank}"])]
    return (
        f"{world_size - len(missing)} of {world_size} ranks came within {timeout.total_seconds():g} s, missing: "
        f"{', '.join(map(str, missing))}"
    )


def _place(address: tuple[str, int]) -> str:
    return f"rendezvous at {address[0]}:{address[1]}"


def _client(address: tuple[str, int], deadline: float, timeout: timedelta) -> dist.Store:
    try:
        _try_to_reach(address, deadline)  # machine 0 may still be starting
    except OSError as error:
        raise RendezvousError(
            f"could not reach the {_place(address)} within {timeout.total_seconds():g} s "
            f"({error}): is machine 0 started, and is its address right?"
        ) from None
    return dist.TCPStore(address[0], address[1], is_master=False, timeout=timeout)


def _try_to_reach(address: tuple[str, int], deadline: float) -> None:
    """Connect once, by the deadline.

    Raises:
        OSError: That of the last attempt.
    """
    while True:
        try:
            socket.create_connection(address, timeout=max(0.1, min(5.0, deadline - time.monotonic()))).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)

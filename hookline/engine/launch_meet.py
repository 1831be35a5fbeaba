"""The rendezvous: a store that the starter of machine 0 serves, and a roll call before the first collective."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

from hookline.engine.launch_plan import LaunchError, RendezvousError

__all__ = [
    "connecting",
    "host_towards",
    "interface_towards",
    "meet",
    "serve_store",
    "torchrun_store",
    "wait_for_connected",
]

_SIOCGIFADDR = 0x8915
_VARIABLE = "GLOO_SOCKET_IFNAME"
_SPREAD_S = 0.5
_REFUSED = "hookline/refused"


def serve_store(address: tuple[str, int] | None) -> tuple[dist.TCPStore, tuple[str, int]]:
    """Open the store where the ranks of a run meet; it lives as long as the returned object.

    Args:
        address: Host and port; None for a free port of this machine, which is held from here on, so that no other
            program can take it before the ranks use it.

    Returns:
        The store, and its host and port.

    Raises:
        LaunchError: If the port is in use or the host is not this machine's.
    """
    if address is None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()[:2]
        return _server(address, listener.detach()), address
    try:
        return _server(address, None), address
    except dist.DistNetworkError as error:
        reason = "is in use" if "EADDRINUSE" in str(error) else f"cannot be bound ({str(error).splitlines()[0]})"
        raise LaunchError(
            f"port {address[1]} {reason} on this machine: choose another one (--dist-url, MASTER_PORT), or --dist-url "
            "auto for a free one on a single machine. If another machine of this run was started here as machine 0, "
            "give this one its own --machine-rank"
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
) -> dist.Store:
    """Wait until all ranks have come and agree on what they are; the error names those that have not.

    Args:
        address: Host and port of the store.
        rank: This rank.
        world_size: How many are expected.
        backend: What all of them must use.
        timeout: How long to wait.
        store: The store, if it is open already.

    Returns:
        The store.

    Raises:
        LaunchError: On all ranks, if a rank comes twice or they differ.
        RendezvousError: If the store cannot be reached, is lost, or a rank does not come.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    store = store if store is not None else _client(address, deadline, timeout)
    with _explained(address, rank):
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
            raise _unconnected(address, world_size, timeout)


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
        raise _unconnected(address, world_size, timeout, str(error).split("\n")[0]) from error


def _unconnected(address: tuple[str, int], world_size: int, timeout: timedelta, reason: str = "") -> RendezvousError:
    return RendezvousError(
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


@contextlib.contextmanager
def interface_towards(address: tuple[str, int]) -> Iterator[None]:
    """Let gloo listen where the other ranks can reach it: on the interface that leads to the store.

    By itself gloo takes the address of the host's name, which many machines map to a loopback address or not at all.
    `GLOO_SOCKET_IFNAME`, where set, is left alone.

    Args:
        address: Host and port of the store.
    """
    name = None
    if _VARIABLE not in os.environ:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing, chooses the route
            name = _interface_of(probe.getsockname()[0])
    if name is not None:
        os.environ[_VARIABLE] = name
    try:
        yield
    finally:
        if name is not None:
            os.environ.pop(_VARIABLE, None)


def _place(address: tuple[str, int]) -> str:
    return f"rendezvous at {address[0]}:{address[1]}"


def host_towards(address: tuple[str, int]) -> str:
    """Name this machine, with the address by which others reach it.

    Args:
        address: Host and port of the store.
    """
    name = socket.gethostname()
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing, chooses the route
        own = probe.getsockname()[0]
        return name if own.startswith("127.") else f"{name} ({own})"
    return name


def _server(address: tuple[str, int], listener: int | None) -> dist.TCPStore:
    return dist.TCPStore(address[0], address[1], is_master=True, wait_for_workers=False, master_listen_fd=listener)


def _client(address: tuple[str, int], deadline: float, timeout: timedelta) -> dist.Store:
    # machine 0 may still be starting
    while True:
        try:
            socket.create_connection(address, timeout=max(0.1, min(5.0, deadline - time.monotonic()))).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise RendezvousError(
                    f"could not reach the {_place(address)} within {timeout.total_seconds():g} s "
                    f"({error}): is machine 0 started, and is its address right?"
                ) from None
            time.sleep(0.1)
    return dist.TCPStore(address[0], address[1], is_master=False, timeout=timeout)


def _interface_of(ip: str) -> str | None:
    """The network interface that has an IPv4 address, found where the system can be asked (Linux)."""
    try:
        import fcntl
    except ImportError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(asker.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == ip:
                    return name
    return None

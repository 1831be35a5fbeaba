"""The rendezvous: a store that the starter of machine 0 serves, and a roll call before the first collective."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from hookline.engine.launch_plan import LaunchError

__all__ = ["interface_towards", "meet", "serve_store"]

_SIOCGIFADDR = 0x8915
_VARIABLE = "GLOO_SOCKET_IFNAME"


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
            "auto for a free one on a single machine"
        ) from None


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
        LaunchError: If the store cannot be reached, a rank does not come or comes twice, or they differ.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    store = store if store is not None else _client(address, deadline, timeout)
    place = f"rendezvous at {address[0]}:{address[1]}"
    expected = f"{world_size} ranks on {backend}"
    agreed = store.compare_set("hookline/plan", "", expected).decode()
    if agreed != expected:
        raise LaunchError(f"{place}: rank {rank} expects {expected}, another one expects {agreed}")
    if store.add(f"hookline/rank/{rank}", 1) > 1:
        raise LaunchError(f"{place}: rank {rank} came twice; give each machine its own --machine-rank")
    if store.add("hookline/arrived", 1) == world_size:
        store.set("hookline/all", "1")
    while not store.check(["hookline/all"]):
        if time.monotonic() > deadline:
            missing = [r for r in range(world_size) if not store.check([f"hookline/rank/{r}"])]
            raise LaunchError(
                f"{place}: {world_size - len(missing)} of {world_size} ranks came within "
                f"{timeout.total_seconds():g} s, missing: {', '.join(map(str, missing))}"
            )
        time.sleep(0.05)
    return store


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
                raise LaunchError(
                    f"could not reach the rendezvous at {address[0]}:{address[1]} within {timeout.total_seconds():g} s "
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

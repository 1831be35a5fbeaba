"""This machine as the others of a run see it: its name, address and network interface."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["host_towards", "interface_towards"]

_SIOCGIFADDR = 0x8915
_VARIABLE = "GLOO_SOCKET_IFNAME"
_ELSEWHERE = ("192.0.2.1", 9)  # an address that is nobody's (RFC 5737): the way there is the way out


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
        own = _own_ip(address)
        name = None if own is None else _interface_of(own)
    if name is not None:
        os.environ[_VARIABLE] = name
    try:
        yield
    finally:
        if name is not None:
            os.environ.pop(_VARIABLE, None)


def host_towards(address: tuple[str, int]) -> str:
    """Name this machine, with the address by which others reach it.

    Args:
        address: Host and port of the store.
    """
    name = socket.gethostname()
    own = _own_ip(address)
    return name if own is None or own.startswith("127.") else f"{name} ({own})"


def _own_ip(address: tuple[str, int]) -> str | None:
    """The IPv4 address of this machine on the way to another one, None if there is no such way.

    Many systems map their own name to a loopback address: then it is the one on the way out.
    """
    own = _route(address)
    if own is not None and own.startswith("127.") and not _means_loopback(address[0]):
        return _route(_ELSEWHERE) or own
    return own


def _route(address: tuple[str, int]) -> str | None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing, chooses the route
        return str(probe.getsockname()[0])
    return None


def _means_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "localhost"


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

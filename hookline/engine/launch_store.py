"""The store where the ranks of a run meet: served by the starter of machine 0, reached by all others."""

import contextlib
import errno
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from hookline.engine.launch_plan import LaunchError, RendezvousError

__all__ = ["RUN", "Notice", "append", "keep_quiet", "place_name", "reach_store", "say", "serve_store"]

RUN = "hookline/run"
"""Where the store keeps the name of its run."""

_BACKLOG = 4096  # all ranks come at once


def say(line: str) -> None:
    """Write a line to the error stream, at once, so that the lines of several ranks do not mix.

    Args:
        line: The line.
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def keep_quiet(line: str) -> None:
    """Do not write it.

    Args:
        line: The line.
    """


def append(store: Any, key: str, text: str) -> None:
    """Append to what a store keeps.

    Args:
        store: The store; torch's type stubs do not know that it can.
        key: Where.
        text: What.
    """
    store.append(key, text)


class Notice:
    """Says something when a wait gets long, and again each minute.

    Args:
        say: Called then.
        after_s: How long the first wait is, in seconds.
    """

    def __init__(self, say: Callable[[], object], after_s: float = 10.0) -> None:
        self._say = say
        self._next = time.monotonic() + after_s

    def waited(self) -> None:
        """Say it if it is time."""
        if time.monotonic() > self._next:
            self._next = time.monotonic() + 60.0
            self._say()


def serve_store(
    address: tuple[str, int] | None,
    timeout: timedelta = timedelta(minutes=5),
    run: str = "",
    say: Callable[[str], object] = keep_quiet,
) -> tuple[dist.TCPStore, tuple[str, int]]:
    """Open the store where the ranks of a run meet; it lives as long as the returned object.

    Args:
        address: Host and port; None for a free port of this machine. The port is held from here on, so that no other
            program can take it before the ranks use it.
        timeout: How long to try to reach this machine by its own address, which DNS may not know yet.
        run: The name of the run, where it has one.
        say: Called now and then with what is waited for.

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
            _reach_oneself(address, timeout, say)
            listener = listener.dup()
    options: dict[str, Any] = {"is_master": True, "wait_for_workers": False, "master_listen_fd": listener.detach()}
    try:  # it connects to itself by the host's name
        store = _opened(address, timeout, **options)
    except OSError as error:
        raise LaunchError(
            f"machine 0 reaches something else at {address[0]}:{address[1]} than itself ({error}): is {address[0]} "
            "its own address?"
        ) from None
    store.set(RUN, run)
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


def _reach_oneself(address: tuple[str, int], timeout: timedelta, say: Callable[[str], object]) -> None:
    try:
        _try_to_reach(address, time.monotonic() + timeout.total_seconds(), say)
    except OSError as error:
        raise LaunchError(
            f"machine 0 cannot reach itself at {address[0]}:{address[1]} within {timeout.total_seconds():g} s "
            f"({error}): is {address[0]} its own address? --dist-url or MASTER_ADDR must name the machine that is "
            "started as machine 0"
        ) from None


def place_name(address: tuple[str, int]) -> str:
    """Name the rendezvous in messages.

    Args:
        address: Its host and port.
    """
    return f"rendezvous at {address[0]}:{address[1]}"


def reach_store(
    address: tuple[str, int], deadline: float, timeout: timedelta, say: Callable[[str], object]
) -> dist.Store:
    """Open the store that machine 0 serves.

    Args:
        address: Its host and port.
        deadline: Until when to try, by `time.monotonic`.
        timeout: How long that is, for the message, and for what is asked of the store later.
        say: Called now and then with what is waited for.

    Returns:
        The store.

    Raises:
        RendezvousError: If it cannot be reached.
    """
    try:
        _try_to_reach(address, deadline, say)  # machine 0 may still be starting
    except OSError as error:
        raise RendezvousError(
            f"could not reach the {place_name(address)} within {timeout.total_seconds():g} s "
            f"({error}): is machine 0 started, and is its address right?"
        ) from None
    try:
        store = _opened(address, timedelta(seconds=max(1.0, deadline - time.monotonic())), is_master=False)
    except OSError as error:
        raise RendezvousError(
            f"{place_name(address)}: what answers there is no store of torch ({error}); is another program on that "
            "port, and is the address right?"
        ) from None
    store.set_timeout(timeout)
    return store


def _opened(address: tuple[str, int], timeout: timedelta, **options: Any) -> dist.TCPStore:
    """Open a store in a thread: torch waits for ever for a program that takes the connection and says nothing.

    Raises:
        TimeoutError: If there is no answer.
        ConnectionError: If there is a wrong one.
    """
    found: list[dist.TCPStore | Exception] = []

    def open_it() -> None:
        try:
            found.append(dist.TCPStore(*address, timeout=timeout, **options))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=open_it, name="open the store", daemon=True)
    thread.start()
    thread.join(timeout.total_seconds() + 1)
    if not found:
        raise TimeoutError(f"no answer within {timeout.total_seconds():.3g} s")
    if isinstance(found[0], RuntimeError):  # torch's DistError, or in older versions a failed check of the answer
        raise ConnectionError(str(found[0]).split("\n")[0])
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _try_to_reach(address: tuple[str, int], deadline: float, say: Callable[[str], object]) -> None:
    """Connect once, by the deadline.

    Raises:
        OSError: That of the last attempt.
    """
    reason: OSError | None = None
    notice = Notice(lambda: say(f"waiting for machine 0 at {address[0]}:{address[1]} ({reason})"))
    while True:
        try:
            socket.create_connection(address, timeout=max(0.1, min(5.0, deadline - time.monotonic()))).close()
            return
        except OSError as error:
            reason = error
            if time.monotonic() > deadline:
                raise
            notice.waited()
            time.sleep(0.1)

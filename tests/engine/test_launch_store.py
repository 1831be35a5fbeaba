"""The store where ranks meet: what else may answer at its address, and what is said during a long wait."""

import contextlib
import itertools
import socket
import threading
import time
import types
from datetime import timedelta

import pytest

from hookline.engine import launch_meet, launch_store
from hookline.engine.launch import LaunchError, RendezvousError
from hookline.engine.launch_meet import meet
from hookline.engine.launch_store import serve_store


def refuse(listener):
    """Answer as a server of another protocol does."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()


@pytest.fixture(params=["that says nothing", "that answers otherwise"])
def other_program(request):
    """The address of another program."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if request.param == "that answers otherwise":
            thread = threading.Thread(target=refuse, args=(listener,), daemon=True)
            thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def test_another_program_at_the_address_is_told_in_time(other_program):
    start = time.monotonic()
    with pytest.raises(
        RendezvousError, match=r"what answers there is no store of torch \(.*is another program on that"
    ):
        meet(other_program, 1, 2, "gloo", timedelta(seconds=2))
    assert time.monotonic() - start < 20


def test_machine_0_that_reaches_another_program_by_its_address_says_so(monkeypatch):
    with socket.create_server(("127.0.0.2", 0)) as listener:  # 127.0.0.1 is free at this port
        host, port = listener.getsockname()
        monkeypatch.setattr(
            "hookline.engine.launch_store._listener", lambda port: socket.create_server(("127.0.0.1", port))
        )
        with pytest.raises(LaunchError, match=rf"machine 0 reaches something else at {host}:{port} .*its own address"):
            serve_store((host, port), timedelta(seconds=2))


def test_a_long_wait_says_what_for(monkeypatch):
    now = itertools.count()
    for module in (launch_meet, launch_store):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: next(now), sleep=lambda s: None))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    said = []
    with pytest.raises(RendezvousError, match="could not reach"):
        meet(address, 1, 2, "gloo", timedelta(seconds=50), say=said.append)
    assert said == [f"waiting for machine 0 at 127.0.0.1:{address[1]} ([Errno 111] Connection refused)"]
    store, address = serve_store(None)
    with pytest.raises(RendezvousError, match="1 of 3 ranks came within 50 s, missing: 1, 2"):
        meet(address, 0, 3, "gloo", timedelta(seconds=50), store, say=said.append)
    assert said[1:] == [f"rendezvous at 127.0.0.1:{address[1]}: 1 of 3 ranks came, missing: 1, 2"]

"""Which interface and address of this machine the others are told."""

import os
import socket

import pytest

from hookline.engine import launch_network
from hookline.engine.launch_network import host_towards, interface_towards


def test_gloo_listens_on_the_interface_of_the_store(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    with interface_towards(("127.0.0.1", 1)):
        assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    with interface_towards(("127.0.0.1", 1)):
        assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


# where the system's way to an address begins: towards this machine's own name it is a loopback address, as on Debian
ROUTES = {"here": "127.0.1.1", "127.0.0.1": "127.0.0.1", "192.0.2.1": "10.0.0.7", "10.0.0.9": "10.0.0.7"}


@pytest.mark.parametrize(
    ("host", "own"), [("here", "10.0.0.7"), ("10.0.0.9", "10.0.0.7"), ("127.0.0.1", "127.0.0.1"), ("nowhere", None)]
)
def test_a_name_that_means_loopback_is_not_what_others_are_told(monkeypatch, host, own):
    monkeypatch.setattr(launch_network, "_route", lambda address: ROUTES.get(address[0]))
    assert launch_network._own_ip((host, 1)) == own
    told = host_towards((host, 1))
    assert told == (f"{socket.gethostname()} (10.0.0.7)" if own == "10.0.0.7" else socket.gethostname())

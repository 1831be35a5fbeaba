"""How often a rank that waits asks for the others' pulse."""

import time

import pytest

from hookline.engine import launch_pulse
from hookline.engine.launch_pulse import Pulse
from hookline.engine.launch_store import serve_store


@pytest.mark.parametrize(("world_size", "least", "most"), [(2, 3, 40), (8, 1, 2)])
def test_the_more_ranks_the_less_often_each_asks_for_all(monkeypatch, world_size, least, most):
    monkeypatch.setattr(launch_pulse, "_LONGEST_PERIOD_S", 0.05)
    monkeypatch.setattr(launch_pulse, "patient_since", time.monotonic)
    listened = []
    monkeypatch.setattr(Pulse, "_listen", lambda self, store: listened.append(time.monotonic()))
    _store, address = serve_store(None)
    with Pulse(address, 0, world_size, 60.0, pytest.fail):
        time.sleep(1.2)
    assert least <= len(listened) <= most

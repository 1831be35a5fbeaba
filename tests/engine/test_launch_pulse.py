"""How often a rank that waits asks for the others' pulse."""

import itertools
import threading
import time

import pytest

from hookline.engine import launch_pulse
from hookline.engine.launch_pulse import Pulse
from hookline.engine.launch_store import serve_store


@pytest.mark.parametrize(("world_size", "often"), [(2, True), (8, False)])
def test_the_more_ranks_the_less_often_each_asks_for_all(monkeypatch, world_size, often):
    """A busy machine makes pauses longer, never all of them, and none shorter."""
    monkeypatch.setattr(launch_pulse, "_LONGEST_PERIOD_S", 0.05)
    monkeypatch.setattr(launch_pulse, "patient_since", time.monotonic)
    listened, enough = [], threading.Event()

    def listen(self, store):
        listened.append(time.monotonic())
        if len(listened) == (20 if often else 3):
            enough.set()

    monkeypatch.setattr(Pulse, "_listen", listen)
    _store, address = serve_store(None)
    with Pulse(address, 0, world_size, 60.0, pytest.fail):
        assert enough.wait(120)
    shortest_s = min(later - earlier for earlier, later in itertools.pairwise(listened))
    assert (shortest_s < 0.4) is often  # they are 0.2 and 0.8 s by the rule

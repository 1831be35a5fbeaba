"""Where a run's job is managed: what is said where a client is missing."""

import sys

from hookline.engine import job_systems
from hookline.engine.suspend import SuspendCheckpointer


def test_a_missing_client_of_hfai_is_told_once(monkeypatch, caplog):
    monkeypatch.setenv("HFAI_SIMULATE", "1")
    monkeypatch.setitem(sys.modules, "hfai.client", None)
    job_systems._say_once.cache_clear()
    SuspendCheckpointer(None)
    assert caplog.text.count("hfai.client cannot be imported") == 1

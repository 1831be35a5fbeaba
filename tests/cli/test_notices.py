"""Signals that come while nobody can act on them: that none of several is forgotten."""

import signal

import pytest

from hookline.cli.notices import early_signal, received, remembered
from hookline.engine.launch_signals import left_by_sigterm


def test_the_first_is_the_reason():
    with remembered():
        assert received() is None
        assert early_signal() is None
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        assert received()[0] == "SIGUSR2"
        assert early_signal() == signal.SIGUSR2


def test_a_sigterm_behind_another_signal_ends_the_wait_for_the_ranks():
    with remembered():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert received()[0] == "SIGUSR1"
        with pytest.raises(SystemExit) as leaving, left_by_sigterm(early_signal):
            pytest.fail("it waits")
    assert leaving.value.code == 143
    assert received() is None

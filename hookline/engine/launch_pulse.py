"""A pulse of each rank, by which a patient wait tells a rank that works from one that is cut off.

A rank that evaluates or writes alone may take hours, and the others wait for it without a word. Were its machine to go
away meanwhile, no connection would break that is in use: they would wait for `eval_timeout`. So a thread of each rank
counts up a number in the store where the ranks met, and those that wait look whether the others' numbers move.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch.distributed as dist

from hookline.distributed_groups import TIMEOUT, patient_since

__all__ = ["Pulse"]

_KEY = "hookline/pulse/{}"
_LONGEST_PERIOD_S = 5.0
# All who wait ask for all others' numbers: the more ranks, the less often, so that the store has time for them.
_LISTEN_S_PER_RANK = 0.1


class Pulse(contextlib.AbstractContextManager["Pulse"]):
    """Beats while the block runs, and listens while this rank waits patiently.

    Args:
        address: Host and port of the store.
        rank: This rank.
        world_size: All ranks.
        timeout_s: A rank that is silent for so long is lost.
        on_silence: Called, in a thread of its own, with what a message says behind the rank.
        prefix: That of the run's keys in the store.
    """

    def __init__(
        self,
        address: tuple[str, int],
        rank: int,
        world_size: int,
        timeout_s: float,
        on_silence: Callable[[str], object],
        prefix: str = "",
    ) -> None:
        self._address = address
        self._prefix = prefix
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._timeout_s = timeout_s
        self._on_silence = on_silence
        self._period_s = min(_LONGEST_PERIOD_S, timeout_s / 5)
        self._listen_period_s = min(timeout_s / 5, max(self._period_s, _LISTEN_S_PER_RANK * world_size))
        self._listened_at = -math.inf
        self._numbers: dict[int, bytes] = {}
        self._heard_at: dict[int, float] = {}
        self._answered_at = time.monotonic()
        self._began, self._stop = threading.Event(), threading.Event()

    def __enter__(self) -> Pulse:
        # two threads: one waits for the store, which may never answer, the other one must notice that
        for work in (self._beat, self._judge):
            threading.Thread(target=work, name=f"pulse{work.__name__}", daemon=True).start()
        self._began.wait(self._timeout_s)  # those that listen ask for a number that must be there
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    def _beat(self) -> None:
        try:
            own = dist.TCPStore(*self._address, is_master=False)  # a connection that nobody else waits for
            store = dist.PrefixStore(self._prefix, own)
            number = 0
            while not self._stop.is_set():
                number += 1
                store.set(_KEY.format(self._rank), str(number))
                self._began.set()
                if patient_since() is not None and time.monotonic() - self._listened_at >= self._listen_period_s:
                    self._listened_at = time.monotonic()
                    self._listen(store)
                else:
                    store.check([_KEY.format(self._rank)])
                self._answered_at = time.monotonic()
                self._stop.wait(self._period_s)
        except RuntimeError:  # the store is gone, which those who wait will notice
            return
        finally:
            self._began.set()

    def _listen(self, store: dist.Store) -> None:
        numbers = store.multi_get([_KEY.format(other) for other in self._others])
        for other, number in zip(self._others, numbers, strict=True):
            if self._numbers.get(other) != number:
                self._numbers[other] = number
                self._heard_at[other] = time.monotonic()

    def _judge(self) -> None:
        while not self._stop.wait(self._period_s):
            since = patient_since()
            found = None if since is None else self._silence(since)
            if found is not None and patient_since() == since and not self._stop.is_set():
                self._on_silence(found)
                return

    def _silence(self, since: float) -> str | None:
        """Say who has been silent for too long, and at least since this wait began."""
        latest = time.monotonic() - self._timeout_s
        heard = f"was not heard for {self._timeout_s:g} s ({TIMEOUT})"
        if max(since, self._answered_at) < latest:
            host, port = self._address
            return (
                f"waited for other ranks, and the store where the ranks met, at {host}:{port}, {heard}: machine 0 has "
                "ended, or the network is cut"
            )
        silent = [other for other in self._others if max(since, self._heard_at.get(other, since)) < latest]
        if silent:
            names = ", ".join(map(str, silent[:8])) + (" ..." if len(silent) > 8 else "")
            return f"waited for what other ranks do alone, and rank(s) {names} {heard}: stopped, cut off, or gone"
        return None

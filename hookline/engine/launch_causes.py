"""Why a run ends: the rank that fails tells the others, over all machines, so that each names the cause.

A rank that waits for one that has failed only learns that a connection broke or that time is up. It looks into the
store where the ranks met: there lies what the first one to fail has told, and who else has only lost contact. Who has
told nothing at all was killed, hangs, or is cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from hookline.distributed_groups import TIMEOUT, WaitedTooLongError, is_timeout, waiting
from hookline.engine.launch_network import host_towards
from hookline.engine.launch_store import append, say
from hookline.engine.launch_words import all_lost, listed

__all__ = [
    "CAUSE",
    "ENDED",
    "Causes",
    "LostContactError",
    "Orphaned",
    "ask_in_time",
    "ended_because",
    "has_lost_contact",
]

CAUSE = "hookline/cause"
"""Where the store keeps what the first one to fail has told."""
ENDED = "hookline/ended/{}"
"""Set before a rank is ended by its starter, because of another one."""

# How long a rank looks for the cause. Its starter gives it two seconds to end by itself.
_LOOK_S = 1.5
# The store may be out of reach, and then answers late or never.
_ANSWER_S = 3.0
# A rank that hangs outside of collectives does not notice that others have failed: it looks so often, and has so long.
_WATCH_PERIOD_S = 5.0
_WATCH_GRACE_S = 60.0
_LAST_GRACE_S = 10.0
# How long rank 0 waits, when its work is done, for that of the others.
_LEAVE_S = 300.0
_LEFT = "hookline/left"
_DONE = "hookline/done"  # rank 0's work is
_LOST = "hookline/lost/{}"
_ALL_LOST = "hookline/lost"
_HOSTS = "hookline/hosts"
# What NCCL and c10d say of others; the rest, such as a GPU used twice or full memory, is this rank's own failure.
_OF_OTHERS = (
    "remote process",
    "ncclremoteerror",
    "socket",
    "connection",
    "timed out",
    "timeout",
    "abort",
    "broken pipe",
)
_OWN_TEXTS = ("system call (e.g. socket, malloc)", "no socket interface")  # which the words above would find


class LostContactError(RuntimeError):
    """A rank ended because it lost contact with another one; the message says what became of that one."""


class Orphaned(SystemExit):
    """A rank leaves because its starter was killed."""


def has_lost_contact(error: BaseException) -> bool:
    """Tell whether an error is the consequence of another rank's end, or of its silence.

    Args:
        error: What was raised.
    """
    if isinstance(error, dist.DistBackendError):
        text = str(error).lower()
        for own in _OWN_TEXTS:
            text = text.replace(own, "")
        return any(word in text for word in _OF_OTHERS)
    if isinstance(error, LostContactError | WaitedTooLongError | dist.DistError):
        return True
    # gloo raises plain RuntimeErrors, most of which begin with the place in its source
    words = ("/gloo/", "pair closure", "monitoredBarrier")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Causes:
    """What the ranks of a run tell each other about their end.

    Args:
        store: Where the ranks met.
        address: Its host and port, for the message.
        rank: This rank.
        world_size: All ranks.
        timeout: That of the process group, for the message.
    """

    def __init__(
        self, store: dist.Store, address: tuple[str, int], rank: int, world_size: int, timeout: timedelta
    ) -> None:
        self._store = store
        self._address = address
        self._host = host_towards(address)
        self._rank = rank
        self._world_size = world_size
        self._timeout = timeout
        self._zero_is_done = False
        append(store, _HOSTS, f"{rank} {self._host}\n")

    def tell(self, error: BaseException) -> None:
        """Tell the others that this rank failed, and of what; only the first one to fail is remembered.

        A rank that its starter ends because of another one tells nothing.

        Args:
            error: What was raised.
        """
        cause = {"rank": self._rank, "host": self._host, "text": _describe(error)}
        ask_in_time(lambda: self._tell(json.dumps(cause)))

    def _tell(self, cause: str) -> None:
        if not self._store.check([ENDED.format(self._rank)]):
            self._store.compare_set(CAUSE, "", cause)

    def explain(self, error: BaseException) -> LostContactError:
        """Find out why this rank lost contact with others.

        Args:
            error: Of which :func:`has_lost_contact` is true.

        Returns:
            What to raise instead.
        """
        found = ask_in_time(self._look)
        waited: tuple[float, str] | None = None
        if isinstance(error, WaitedTooLongError):
            waited = error.seconds, error.setting
        elif is_timeout(error) or "monitoredBarrier" in str(error):
            waited = self._timeout.total_seconds(), TIMEOUT
        if found == []:  # the store answers, and nobody is silent
            return LostContactError(f"rank {self._rank} {all_lost(error, waited)}")
        return LostContactError(f"rank {self._rank} {self._end(found, waited)}")

    def leave(self) -> None:
        """Note that this rank's work is done; rank 0, with which the store may go, waits a while for the others."""
        deadline = time.monotonic() + _LEAVE_S
        with contextlib.suppress(RuntimeError):  # nobody is there any more
            with waiting(patient=True):
                if self._rank == 0:
                    self._store.set(_DONE, "1")
                self._store.add(_LEFT, 1)
            while self._rank == 0 and self._store.add(_LEFT, 0) < self._world_size and time.monotonic() < deadline:
                if self._store.check([CAUSE]):
                    return
                time.sleep(0.05)

    @contextlib.contextmanager
    def watched(self, on_failure: Callable[[BaseException], object] | None) -> Iterator[None]:
        """End this process some time after another rank's failure, if it does not leave the block by itself.

        Args:
            on_failure: Called with the reason before that, None to write it here.
        """
        left = threading.Event()
        threading.Thread(target=self._watch, args=(left, on_failure), name="causes-watch", daemon=True).start()
        try:
            yield
        finally:
            left.set()

    def _watch(self, left: threading.Event, on_failure: Callable[[BaseException], object] | None) -> None:
        while not self._is_told():
            if left.wait(_WATCH_PERIOD_S):
                return
        if left.wait(_WATCH_GRACE_S):
            return
        reason = self.explain(RuntimeError("another rank has failed"))
        say(f"rank {self._rank} hangs and is ended")
        if on_failure is not None:
            on_failure(reason)
        else:  # nobody else shows it
            say(f"error: {reason}")
        if not left.wait(_LAST_GRACE_S):
            os._exit(1)

    def _is_told(self) -> bool:
        """Tell whether a rank has failed, or machine 0 is gone before its work was done."""
        try:
            self._zero_is_done = self._zero_is_done or self._store.check([_DONE])
            return self._store.check([CAUSE])
        except RuntimeError:
            return not self._zero_is_done

    def _end(self, found: Any, waited: tuple[float, str] | None) -> str:
        if isinstance(found, dict):
            return ended_because(found)
        silent = listed(found) if found else "another rank"
        unreachable = (
            ""
            if found is not None
            else (
                f". The store where the ranks met, at {self._address[0]}:{self._address[1]}, cannot be asked: machine "
                "0 has ended, or the network is cut"
            )
        )
        if waited is not None:
            return (
                f"waited {waited[0]:g} s ({waited[1]}) for {silent} in a collective: that rank hangs, is cut off, or "
                f"needs more time than this setting gives{unreachable}"
            )
        if unreachable:
            return f"lost the connection to the others{unreachable}"
        return (
            f"lost the connection to {silent}, which ended without a word: killed (if nobody did it, memory was full: "
            "see dmesg there), or its machine or network is gone"
        )

    def _look(self) -> Any:
        """What the first rank to fail told, else the ranks that are silent, with their hosts."""
        if self._store.add(_LOST.format(self._rank), 1) == 1:
            append(self._store, _ALL_LOST, f"{self._rank} ")  # few questions: at 1000 ranks all ask at once
        deadline = time.monotonic() + _LOOK_S
        while time.monotonic() < deadline:
            if self._store.check([CAUSE]):
                return json.loads(self._store.get(CAUSE))
            time.sleep(0.05)
        lost = {int(rank) for rank in self._store.get(_ALL_LOST).decode().split()}
        lines = [line.partition(" ") for line in self._store.get(_HOSTS).decode().splitlines()]
        hosts = {int(rank): host for rank, _, host in lines}
        return sorted((rank, host) for rank, host in hosts.items() if rank not in lost)


def ended_because(cause: dict[str, Any]) -> str:
    """Say behind a rank's number that another one failed before.

    Args:
        cause: What that one told.
    """
    return f"ended because rank {cause['rank']} on {cause['host']} failed before: {cause['text']}"


def ask_in_time(question: Callable[[], Any]) -> Any:
    """Ask the store, None if it does not answer in time.

    Args:
        question: Asks it; may raise RuntimeError or OSError.
    """
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(question())
        except (RuntimeError, OSError):  # it is gone
            return

    thread = threading.Thread(target=ask, name="causes", daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    return answers[0] if answers else None


def _describe(error: BaseException) -> str:
    if isinstance(error, Orphaned):
        return "the program that had started it was killed"
    if isinstance(error, SystemExit):
        return f"it left with exit code {error.code}"
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted (Ctrl-C)"
    return f"{type(error).__name__}: {error} (the traceback is shown there, and in the rank's log)"

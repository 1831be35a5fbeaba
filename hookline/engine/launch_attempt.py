"""Meet in torchrun's store, which outlives the processes: with `--max-restarts` others come after them.

What one attempt leaves there, such as the cause of its end, must not be taken for the next one's. Nothing in the
environment tells attempts apart: each machine counts restarts by itself (`TORCHELASTIC_RESTART_COUNT`), and not those
that another machine's failure caused. So each rank asks by a word of its own, rank 0 answers with the name of the
attempt, and all that an attempt keeps in the store is behind its name.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed as dist

from hookline.engine.launch_meet import explained, period_s
from hookline.engine.launch_plan import RendezvousError
from hookline.engine.launch_store import Notice, append, keep_quiet, place_name

__all__ = ["attempt", "torchrun_store"]

_PERIOD_S = 0.05
_ASKED = "hookline/asked"
_ANSWER = "hookline/answer/{}"


def torchrun_store(address: tuple[str, int], timeout: timedelta) -> dist.Store:
    """Open the store that torchrun gives its processes, of this attempt and of others.

    Args:
        address: Its host and port, for the message.
        timeout: How long to wait for it.

    Returns:
        The store.

    Raises:
        RendezvousError: If it cannot be reached.
    """
    try:
        return next(iter(dist.rendezvous("env://", timeout=timeout)))[0]
    except dist.DistError as error:
        raise RendezvousError(f"{place_name(address)} of torchrun: {str(error).splitlines()[0]}") from None


@contextlib.contextmanager
def attempt(
    store: dist.Store,
    address: tuple[str, int],
    rank: int,
    world_size: int,
    timeout: timedelta,
    deadline: float | None = None,
    say: Callable[[str], object] = keep_quiet,
) -> Iterator[str]:
    """Agree on the name of this attempt; rank 0 tells it to those that come while the block runs.

    Args:
        store: The store of all attempts.
        address: Its host and port, for the message.
        rank: This rank.
        world_size: All ranks; the more, the less often each asks.
        timeout: How long to wait for rank 0.
        deadline: When that is over, by `time.monotonic`; by default it begins now.
        say: Called now and then with what is waited for.

    Yields:
        The name, a prefix for all keys.

    Raises:
        RendezvousError: If the store is lost, or rank 0 does not come.
    """
    word = os.urandom(8).hex()
    deadline = time.monotonic() + timeout.total_seconds() if deadline is None else deadline
    notice = Notice(lambda: say(f"{place_name(address)}: waiting for rank 0"))
    with contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(_answering(store, word))
        with explained(address, rank):
            name = _ask(store, word, deadline, period_s(world_size), notice)
        if name is None:
            raise RendezvousError(f"{place_name(address)}: rank 0 did not come within {timeout.total_seconds():g} s")
        yield name


def _ask(store: dist.Store, word: str, deadline: float, pause_s: float, notice: Notice) -> str | None:
    append(store, _ASKED, f"{word} ")
    while not store.check([_ANSWER.format(word)]):
        if time.monotonic() > deadline:
            return None
        notice.waited()
        time.sleep(pause_s)
    return store.get(_ANSWER.format(word)).decode()


@contextlib.contextmanager
def _answering(store: dist.Store, word: str) -> Iterator[None]:
    """Answer all questions, also those that earlier attempts have left: who asked them is not there to be misled."""
    left = threading.Event()
    thread = threading.Thread(target=_answer, args=(store, f"hookline/attempt/{word}", left), name="attempt")
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _answer(store: dist.Store, name: str, left: threading.Event) -> None:
    answered: set[str] = set()
    try:
        while not left.wait(_PERIOD_S):
            asked = set(store.get(_ASKED).decode().split()) if store.check([_ASKED]) else set()
            for word in asked - answered:
                store.set(_ANSWER.format(word), name)
            answered = asked
    except dist.DistError:  # the store is gone, which those who wait notice
        return

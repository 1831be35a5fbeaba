"""Over which gloo groups ranks wait for each other, and how long.

There are two kinds of waits. In most collectives all ranks do the same work, so a rank that does not come within the
time-out of the group is lost. In the others, such as after an evaluation, a rank waits for what another one does alone:
those patient waits have a gloo group of their own, with a longer time-out.
"""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from weakref import WeakKeyDictionary

import torch.distributed as dist

__all__ = [
    "EVAL_TIMEOUT",
    "TIMEOUT",
    "WaitedTooLongError",
    "connect",
    "disconnect",
    "gloo_group",
    "is_timeout",
    "patient_since",
    "set_timeouts",
    "waiting",
]

TIMEOUT, EVAL_TIMEOUT = "train.env.timeout_s", "train.env.eval_timeout_s"
_DEFAULT_TIMEOUT = timedelta(minutes=30)

_timeout: timedelta | None = None
_eval_timeout: timedelta | None = None
_patient_since: float | None = None
_twins: "WeakKeyDictionary[dist.ProcessGroup, dict[bool, dist.ProcessGroup]]" = WeakKeyDictionary()


class WaitedTooLongError(RuntimeError):
    """Another rank did not come to a collective in time.

    Args:
        message: Which rank waited, and for what.
        seconds: How long.
        setting: The one that says how long.
    """

    def __init__(self, message: str, seconds: float, setting: str) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.setting = setting


def set_timeouts(timeout: timedelta | None, eval_timeout: timedelta | None) -> None:
    """Set how long ranks wait for each other; before the first collective, the same on all ranks.

    Args:
        timeout: That of the process group, where all ranks do the same work; None to forget it.
        eval_timeout: That of patient waits, for what another rank does alone; None for the same.
    """
    global _timeout, _eval_timeout
    _timeout, _eval_timeout = timeout, eval_timeout


def connect(within: timedelta) -> None:
    """Make the connections of all kinds of waits now; each kind has its own time-out from then on.

    A group of gloo connects all pairs of ranks when it is made. That must not take as long as a patient wait may.

    Args:
        within: How long it may take; the group of all ranks was made with this time-out, too.
    """
    for patient in (False, True):
        group = gloo_group(None, patient=patient, within=within)
        dist.barrier(group=group)
        _set_time(group, _time_of(patient and _has_own_time()))
    _set_time(None, _time_of(False))


def disconnect(*, broken: bool) -> None:
    """Take the process group down, if there is one.

    Args:
        broken: This rank has failed, so the others may never do what NCCL would wait for: it is aborted.
    """
    if broken and dist.is_initialized() and dist.get_backend() == "nccl":
        take_down = getattr(dist.distributed_c10d, "_abort_process_group", dist.destroy_process_group)
        with contextlib.suppress(RuntimeError):
            take_down()
    if dist.is_initialized():
        dist.destroy_process_group()


def _has_own_time() -> bool:
    return _eval_timeout not in (None, _timeout)


def _time_of(is_own: bool) -> timedelta:
    return (_eval_timeout if is_own else _timeout) or _DEFAULT_TIMEOUT


def _set_time(group: dist.ProcessGroup | None, timeout: timedelta) -> None:
    if hasattr(dist, "set_timeout"):  # since torch 2.14 or so, which warns of the other name
        dist.set_timeout(timeout, group)
    else:
        dist.distributed_c10d._set_pg_timeout(timeout, group)


def gloo_group(
    group: dist.ProcessGroup | None, *, patient: bool = False, within: timedelta | None = None
) -> dist.ProcessGroup:
    """Return the group itself where it speaks gloo with the right time-out, else its twin that does.

    A twin is made at the first use, by all ranks of the group together.

    Args:
        group: The ranks, all by default.
        patient: For waits for what another rank does alone.
        within: How long making the twin may take, which then has this time-out; by default its own.
    """
    source = group if group is not None else dist.group.WORLD
    assert isinstance(source, dist.ProcessGroup)
    has_own_time = patient and _has_own_time()
    if dist.get_backend(source) == "gloo" and not has_own_time:
        return source
    twins = _twins.setdefault(source, {})
    if has_own_time not in twins:
        timeout = within or _time_of(has_own_time)
        ranks = dist.get_process_group_ranks(source)
        # alone only where other ranks stay away: for groups so made torch 2.8 takes names that differ between
        # ranks, for ever waiting for each other, once a group was made that some of them are not in
        alone = source is not dist.group.WORLD
        made = dist.new_group(ranks, timeout=timeout, backend="gloo", use_local_synchronization=alone)
        assert isinstance(made, dist.ProcessGroup)
        twins[has_own_time] = made
    return twins[has_own_time]


def is_timeout(error: BaseException) -> bool:
    """Tell whether gloo gave up waiting for another rank, in one of the two ways it says so.

    Args:
        error: What was raised.
    """
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("timed out waiting" in text or "application timeout" in text)


@contextlib.contextmanager
def waiting(*, patient: bool = False) -> Iterator[None]:
    """Name the setting when a collective in the block takes too long.

    Args:
        patient: The block waits for what another rank does alone.

    Raises:
        WaitedTooLongError: instead of gloo's own error of this kind.
        RuntimeError: any other one, as it was.
    """
    global _patient_since
    _patient_since = time.monotonic() if patient else None
    try:
        yield
    except RuntimeError as error:
        if not is_timeout(error):
            raise
        raise WaitedTooLongError(*_explain(patient)) from error
    finally:
        _patient_since = None


def patient_since() -> float | None:
    """Return since when this rank has been in a patient wait, by ``time.monotonic()``; None if it is in none."""
    return _patient_since


def _explain(patient: bool) -> tuple[str, float, str]:
    is_longer = patient and _eval_timeout is not None
    seconds = ((_eval_timeout if is_longer else _timeout) or _DEFAULT_TIMEOUT).total_seconds()
    setting = EVAL_TIMEOUT if is_longer else TIMEOUT
    reason = " for what another rank does alone, such as evaluating or writing" if is_longer else " for another rank"
    rank = dist.get_rank() if dist.is_initialized() else 0
    return f"rank {rank} waited {seconds:g} s ({setting}){reason}", seconds, setting

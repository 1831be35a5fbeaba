"""From the settings ``train.suspend`` to the hook that saves and leaves when the run is asked to stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from hookline.cli import notices
from hookline.cli.errors import UsageError
from hookline.engine import Checkpointer
from hookline.engine.suspend import SuspendCheckpointer, go_suspend, requeue_slurm_job
from hookline.engine.triggers import DeadlineTrigger, FileTrigger, Trigger, default_triggers

__all__ = ["build_deadline", "build_suspend_checkpointer"]

logger = logging.getLogger(__name__)

ON_SUSPEND: dict[str, Callable[[], None]] = {"requeue": requeue_slurm_job, "go_suspend": go_suspend}


def build_suspend_checkpointer(
    settings: Any, checkpointer: Checkpointer, deadline: Trigger | None = None
) -> SuspendCheckpointer:
    """Make the hook.

    Args:
        settings: ``train.suspend``; see :mod:`hookline.configs.common.train`.
        checkpointer: saves the state.
        deadline: that of the process, of :func:`build_deadline`.

    Raises:
        UsageError: if a setting has a value that cannot be; names it.
    """
    triggers: list[Trigger] = [*default_triggers(), _EarlySignal()]
    if settings.flag_file:
        triggers.append(FileTrigger(str(settings.flag_file)))
    if deadline is not None:
        triggers.append(deadline)
    name = settings.on_suspend
    if name is not None and name not in ON_SUSPEND:
        raise UsageError(f"train.suspend.on_suspend={name!r}: expected null, {', '.join(map(repr, ON_SUSPEND))}")
    code = settings.exit_code
    if code is not None and (not isinstance(code, int) or not 0 <= code <= 255):
        raise UsageError(f"train.suspend.exit_code={code!r}: expected null or 0 to 255")
    if code != 0 and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        logger.warning(
            "torchrun --max-restarts will start a suspended run again; train.suspend.exit_code=0 keeps it from that"
        )
    if not isinstance(settings.period, int) or settings.period < 1:
        raise UsageError(f"train.suspend.period={settings.period!r}: expected a number of steps of at least 1")
    return SuspendCheckpointer(
        checkpointer,
        triggers=triggers,
        on_suspend=None if name is None else ON_SUSPEND[name],
        exit_code=code,
        grace_s=settings.grace_s,
        period=settings.period,
    )


class _EarlySignal(Trigger):
    """Fires for a signal that came while the run was still being built."""

    def start(self) -> None:
        """Look once: from here on there are handlers."""
        found = notices.received()
        if found is not None:
            self.fire(f"signal {found[0]}")
            self.fired_at = found[1]


def build_deadline(settings: Any) -> Trigger | None:
    """Make the trigger of ``deadline_s``: seconds, or ``"slurm"`` for the end of this Slurm job.

    It counts from its first start, so a process whose training starts several times has one, and one end.

    Args:
        settings: ``train.suspend``.

    Raises:
        UsageError: if it is neither, or there is no such job.
    """
    value = settings.deadline_s
    if value is None:
        return None
    try:
        seconds = None if value == "slurm" else float(value)
        return DeadlineTrigger(seconds, margin_s=float(settings.deadline_margin_s))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"train.suspend.deadline_s={value!r}: expected seconds or 'slurm' ({error})") from error

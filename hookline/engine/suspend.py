"""Save once and leave in order when anybody asks the run to stop: the hook, and what it may tell the system."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hookline.distributed import all_gather, any_rank, is_main_process, synchronize
from hookline.engine.train_loop import HookBase
from hookline.engine.triggers import Trigger, default_triggers, hfai_client

if TYPE_CHECKING:
    from hookline.engine.checkpoint import Checkpointer

__all__ = ["EXIT_SUSPENDED", "SuspendCheckpointer", "Suspended", "go_suspend", "requeue_slurm_job"]

EXIT_SUSPENDED = 75  # EX_TEMPFAIL of sysexits.h: it failed for now, try again

logger = logging.getLogger(__name__)


class Suspended(SystemExit):
    """Leaves the loop, and the process, after the state was saved; ``code`` is the exit code."""


class SuspendCheckpointer(HookBase):
    """Save and leave at the end of the step in which somebody asked the run to stop.

    Register it last, so that everything else has finished the step. The notice may reach a single rank: after every
    step all ranks agree by one small reduction over gloo, so that all of them save and leave at the same step.

    Args:
        checkpointer: saves the state.
        file_prefix: the checkpoint is called ``{file_prefix}_{iteration:07d}``, like a periodic one.
        triggers: what may ask the run to stop. By default signals, and HFAI's flag where it is found.
        on_suspend: called on rank 0 when the state is saved, to tell the system: :func:`requeue_slurm_job`,
            :func:`go_suspend` or any function. By default ``go_suspend`` on an HFAI cluster, else nothing. It is
            called even if saving failed, since a job that is not put back into the queue is lost for sure.
        exit_code: the code to leave with. By default 128 + the signal, or 75 for other reasons.
        grace_s: seconds that the system gives; a save that takes longer is warned about.
        period: agree only every so many steps, for models whose steps take less than 20 ms.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        file_prefix: str = "model",
        *,
        triggers: Sequence[Trigger] | None = None,
        on_suspend: Callable[[], object] | None = None,
        exit_code: int | None = None,
        grace_s: float | None = None,
        period: int = 1,
    ) -> None:
        if period < 1:
            raise ValueError(f"period={period}: expected at least 1 step")
        self.checkpointer = checkpointer
        self.file_prefix = file_prefix
        self.triggers = default_triggers() if triggers is None else list(triggers)
        if on_suspend is None and triggers is None and hfai_client() is not None:
            on_suspend = go_suspend
        self.on_suspend = on_suspend
        self.exit_code = exit_code
        self.grace_s = grace_s
        self.period = period

    def before_train(self) -> None:
        """Start listening."""
        for trigger in self.triggers:
            trigger.start()

    def after_train(self) -> None:
        """Stop listening and leave the process's handlers as they were."""
        for trigger in self.triggers:
            trigger.stop()

    def requested(self) -> bool:
        """Say whether this rank was asked to stop. Costs nothing and moves no data; long work may look at it."""
        return any(trigger.fired() for trigger in self.triggers)

    def after_step(self) -> None:
        """Learn whether any rank was asked to stop, and if so save, tell the system and leave.

        Raises:
            Suspended: when the state is saved.
        """
        step = self.trainer.iter + 1
        if step % self.period and step != self.trainer.max_iter:
            return
        if not any_rank(self.requested()):
            return
        if step == self.trainer.max_iter:
            logger.warning("Asked to stop at the last step: the run ends by itself")
            return
        reason = self._agreed_reason()
        logger.warning(f"Suspending at iteration {self.trainer.iter}: {reason}")
        self._save()
        if is_main_process() and self.on_suspend is not None:
            self._tell()
        synchronize()  # whoever left before the main rank has saved would have it taken down as well
        raise Suspended(self._code(reason))

    def _agreed_reason(self) -> str:
        """Share the reasons, so that all ranks leave with the same code."""
        own = next((trigger.reason for trigger in self.triggers if trigger.reason is not None), None)
        return next((reason for reason in all_gather(own) if reason is not None), "asked to stop")

    def _save(self) -> None:
        iteration = self.trainer.iter
        started = time.perf_counter()
        try:
            self.trainer.flush_metrics()
            self.checkpointer.wait()
            if self.checkpointer.last_saved_iteration == iteration:
                logger.info(f"Iteration {iteration} is saved already")
            else:
                self.checkpointer.save(f"{self.file_prefix}_{iteration:07d}", iteration=iteration)
                self.checkpointer.wait()
        except Exception:
            logger.exception("Saving failed; an older checkpoint has to serve")
            return
        taken = time.perf_counter() - started
        if self.grace_s is None:
            logger.info(f"Saved in {taken:.2f} s")
        elif taken <= self.grace_s:
            logger.info(f"Saved in {taken:.2f} s of the {self.grace_s:g} s given")
        else:
            logger.warning(f"Saving took {taken:.2f} s, longer than the {self.grace_s:g} s given: ask for more time")

    def _tell(self) -> None:
        assert self.on_suspend is not None
        name = getattr(self.on_suspend, "__name__", repr(self.on_suspend))
        try:
            self.on_suspend()
            logger.info(f"Told the system: {name}()")
        except Exception:
            logger.exception(f"Telling the system by {name}() failed")

    def _code(self, reason: str) -> int:
        if self.exit_code is not None:
            return self.exit_code
        if reason.startswith("signal "):
            return 128 + signal.Signals[reason.removeprefix("signal ")]
        return EXIT_SUSPENDED


def requeue_slurm_job() -> None:
    """Put this Slurm job back into the queue: a job that merely exits is COMPLETED and does not come back.

    Raises:
        RuntimeError: outside a Slurm job, without ``scontrol``, or if Slurm refuses.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise RuntimeError("requeue_slurm_job: SLURM_JOB_ID is not set, this is no Slurm job")
    if shutil.which("scontrol") is None:
        raise RuntimeError("requeue_slurm_job: scontrol is not on the PATH of this job")
    result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=30, check=False)
    if result.returncode:
        raise RuntimeError(f"scontrol requeue {job} answered {result.returncode}: {result.stderr.strip()}")


def go_suspend() -> None:
    """Tell HFAI that this job may be taken down. On the cluster it does not return; where it does, the run leaves.

    Raises:
        RuntimeError: where HFAI's client is not found.
    """
    client = hfai_client()
    if client is None:
        raise RuntimeError("go_suspend: hfai.client is not found, or this is no HFAI cluster")
    client.go_suspend()

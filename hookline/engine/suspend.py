"""Save once and leave in order when anybody asks the run to stop."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hookline.distributed import all_gather, any_rank, any_rank_later, get_world_size, is_main_process, synchronize
from hookline.engine.hook_base import HookBase
from hookline.engine.job_systems import go_suspend, hfai_client, requeue_slurm_job
from hookline.engine.triggers import Trigger, default_triggers

if TYPE_CHECKING:
    from hookline.engine.checkpoint import Checkpointer

__all__ = ["EXIT_SUSPENDED", "SuspendCheckpointer", "Suspended", "go_suspend", "requeue_slurm_job"]

EXIT_SUSPENDED = 75  # EX_TEMPFAIL of sysexits.h: it failed for now, try again

logger = logging.getLogger(__name__)


class Suspended(SystemExit):
    """Leaves the loop, and the process, after the state was saved; ``code`` is the exit code."""


class SuspendCheckpointer(HookBase):
    """Save and leave at the end of a step when somebody asked the run to stop.

    Register it last, on every rank, so that everything else has finished the step. The notice may reach a single rank
    at any moment: in every step all ranks vote, so that all of them save and leave at the same one. The vote is cast
    at the beginning of a step and counted at its end, so that nobody waits for it; a notice that comes during a step
    may therefore need the next step too. A single process looks at the end of the step.

    An evaluation that was cut short (see :class:`~hookline.engine.hooks.EvalHook`) ends its step at once.

    Args:
        checkpointer: saves the state.
        file_prefix: the checkpoint is called ``{file_prefix}_{iteration:07d}``, like a periodic one.
        triggers: what may ask the run to stop. By default signals, and HFAI's flag where it is found.
        on_suspend: called on rank 0 when the state is saved, to tell the system: :func:`requeue_slurm_job`,
            :func:`go_suspend` or any function. By default ``go_suspend`` on an HFAI cluster, else nothing. It is
            called even if saving failed, since a job that is not put back into the queue is lost for sure.
        exit_code: the code to leave with. By default 128 + the signal, or 75 for other reasons.
        grace_s: seconds that the system gives; a save that takes longer is warned about.
        period: vote only every so many steps. A vote costs 0.3 to 0.6 ms on two busy cores: for steps below 60 ms.

    Raises:
        ValueError: if the period is not positive.
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
        if on_suspend is None and hfai_client() is not None:
            on_suspend = go_suspend
        self.on_suspend = on_suspend
        self.exit_code = exit_code
        self.grace_s = grace_s
        self.period = period
        self._vote: Callable[[], bool] | None = None
        self._is_listening = False
        self._warned = False

    def listen(self) -> None:
        """Start the triggers, if they are not yet."""
        if not self._is_listening:
            self._is_listening = True
            for trigger in self.triggers:
                trigger.start()

    def requested(self) -> bool:
        """Say whether this rank was asked to stop; begins to listen. Moves no data, so long work may look at it."""
        self.listen()
        return any(trigger.fired() for trigger in self.triggers)

    def before_train(self) -> None:
        """Begin to listen; leave if somebody asked already, while the work of an earlier run was made up for."""
        asked = any_rank(self.requested(), patient=True)  # ranks differ in how long they took to start
        if self._has_unfinished() or (asked and self.trainer.start_iter < self.trainer.max_iter):
            self._leave("before the first step; nothing is to be saved")

    def before_step(self) -> None:
        """Cast this rank's vote."""
        if get_world_size() > 1 and (self.trainer.iter + 1) % self.period == 0:
            self._vote = any_rank_later(self.requested())

    def after_step(self) -> None:
        """Learn whether any rank was asked to stop, and if so save, tell the system and leave."""
        trainer = self.trainer
        asked = self._count() or self._has_unfinished()
        self._warn_of_grace()
        if not asked:
            return
        if trainer.iter + 1 >= trainer.max_iter:
            logger.warning("Asked to stop at the last step, after which the run ends by itself")
            return
        self._leave(f"at iteration {trainer.iter}", self._save)

    def after_train(self) -> None:
        """Stop listening and leave the process's handlers as they were; leave if the last evaluation was cut short."""
        try:
            if self.trainer.iter >= self.trainer.max_iter and self._has_unfinished():
                self._leave("in the evaluation after the last step, which is saved")
        finally:
            self._vote = None
            self._is_listening = False
            for trigger in self.triggers:
                trigger.stop()

    def _count(self) -> bool:
        if get_world_size() == 1:
            return self.requested()
        vote, self._vote = self._vote, None
        return vote is not None and vote()

    def _has_unfinished(self) -> bool:
        """Tell whether a hook was cut short in what it does, which hooks do on all ranks together."""
        return any(getattr(hook, "unfinished", False) for hook in self.trainer._hooks)

    def _leave(self, where: str, save: Callable[[float], None] | None = None) -> None:
        """Save, tell and leave, on all ranks together.

        Raises:
            Suspended: always.
        """
        reason, fired_at = self._agreed_reason()
        logger.warning(f"Suspending {where}: {reason}")
        if save is not None:
            save(fired_at)
        if is_main_process() and self.on_suspend is not None:
            self._tell(self.on_suspend)
        synchronize()  # whoever left before the main rank has saved would have it taken down as well
        raise Suspended(self._code(reason))

    def _agreed_reason(self) -> tuple[str, float]:
        """Share reasons, so that all ranks leave with the same code, and how long ago the first notice came."""
        now = time.monotonic()
        own = [(now - trigger.fired_at, trigger.reason) for trigger in self.triggers if trigger.reason is not None]
        heard = [notice for notices in all_gather(own) for notice in notices]
        age, reason = max(heard, default=(0.0, "asked to stop"))
        return str(reason), now - age

    def _save(self, fired_at: float) -> None:
        iteration, checkpointer = self.trainer.iter, self.checkpointer
        started = time.monotonic()
        try:
            self.trainer.flush_metrics(self)
            checkpointer.wait()
            if checkpointer.last_saved_iteration == iteration:
                logger.info(f"Iteration {iteration} is saved already")
            else:
                checkpointer.save(f"{self.file_prefix}_{iteration:07d}", iteration=iteration)
                checkpointer.wait()
        except Exception:
            logger.exception("Saving failed; an older checkpoint has to serve")
            return
        now = time.monotonic()
        taken = f"Saved in {now - started:.2f} s, {now - fired_at:.2f} s after the notice"
        if self.grace_s is None:
            logger.info(taken)
        elif now - fired_at <= self.grace_s:
            logger.info(f"{taken}; {self.grace_s:g} s are given")
        else:
            logger.warning(f"{taken}, but only {self.grace_s:g} s are given: ask for more time")

    def _warn_of_grace(self) -> None:
        """Say it as soon as a periodic save shows that the time given will not do, and not when it is too late."""
        last_save_s = self.checkpointer.last_save_s
        if self.grace_s is not None and not self._warned and last_save_s is not None and last_save_s > self.grace_s:
            self._warned = True
            logger.warning(f"Saving takes {last_save_s:.2f} s, but a suspension gives {self.grace_s:g} s")

    @staticmethod
    def _tell(on_suspend: Callable[[], object]) -> None:
        name = getattr(on_suspend, "__name__", repr(on_suspend))
        logger.info(f"Telling the system: {name}()")
        try:
            on_suspend()
        except Exception:
            logger.exception(f"Telling the system by {name}() failed")

    def _code(self, reason: str) -> int:
        if self.exit_code is not None:
            return self.exit_code
        if reason.startswith("signal "):
            return 128 + signal.Signals[reason.removeprefix("signal ")]
        return EXIT_SUSPENDED

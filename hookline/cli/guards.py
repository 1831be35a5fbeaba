"""``train.guards``: what watches over a run, and what happens when a loss is not finite."""

from __future__ import annotations

import contextlib
import copy
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hookline.cli.checks import check_group, expect_bool, expect_int, expect_number, expect_one_of
from hookline.cli.errors import UsageError
from hookline.distributed import broadcast, is_main_process
from hookline.engine import Checkpointer, SimpleTrainer, hooks
from hookline.engine.anomaly import non_finite_parameters
from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_read import damage_of, read_outline
from hookline.engine.losses import NonFiniteError

__all__ = ["Recovery", "build_watchdog", "check_guards", "guard_hooks"]

NON_FINITE = ("raise", "skip", "restore")
HINT = (
    "train.guards.anomaly=true repeats such steps to name the module; train.guards.non_finite=skip or restore lets a "
    "run go on without them"
)

logger = logging.getLogger(__name__)


def check_guards(cfg: DictConfig) -> None:
    """Check ``train.guards``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    guards = cfg.train.guards
    if guards is None:
        raise UsageError("train.guards=null: expected a dict; each guard is switched off by its own setting")
    check_group("guards", guards, list(guards))
    expect_one_of("guards.non_finite", guards.non_finite, NON_FINITE)
    for key, least in (("max_skips", 0), ("max_restores", 1), ("window", 1), ("memory_period", 1)):
        expect_int(f"guards.{key}", guards[key], least)
    if guards.gc_period is not None:
        expect_int("guards.gc_period", guards.gc_period, 1)
    for key in ("memory_growth", "watchdog_s"):
        if guards[key] is not None:
            expect_number(f"guards.{key}", guards[key], 0, exclusive=True)
    expect_number("guards.watchdog_between_s", guards.watchdog_between_s, 0, exclusive=True)
    for key in ("anomaly", "watchdog_abort"):
        expect_bool(f"guards.{key}", guards[key])
    if guards.watchdog_abort and guards.watchdog_s is None:
        raise UsageError(
            "train.guards.watchdog_abort=true: there is no watchdog; set train.guards.watchdog_s to seconds"
        )


def guard_hooks(guards: DictConfig) -> list[hooks.HookBase]:
    """Make the hooks that act before all others but the timer.

    Args:
        guards: ``train.guards``, checked.
    """
    found: list[hooks.HookBase] = []
    if guards.non_finite != "raise" or guards.anomaly:
        found.append(
            hooks.NonFiniteGuard(
                every_step=guards.non_finite == "skip",
                max_skips=guards.max_skips if guards.non_finite != "raise" else 0,
                window=guards.window,
                anomaly=guards.anomaly,
            )
        )
    if guards.gc_period is not None:
        found.append(hooks.GarbageCollection(guards.gc_period))
    if guards.memory_growth is not None:
        found.append(hooks.MemoryGuard(guards.memory_growth, guards.memory_period))
    return found


def build_watchdog(guards: DictConfig) -> tuple[hooks.HookBase | None, hooks.HookBase | None]:
    """Make the watchdog where it is asked for.

    Args:
        guards: ``train.guards``, checked.

    Returns:
        The first hook of a run, and the one behind all others that evaluate or save.
    """
    if guards.watchdog_s is None:
        return None, None
    dog = hooks.Watchdog(guards.watchdog_s, guards.watchdog_between_s, abort=guards.watchdog_abort)
    return dog, dog.end()


class Recovery:
    """What a run does when a loss was not finite: end, repeat the steps to find the module, or go back and go on.

    Going back means the newest checkpoint from before the update that may have spoilt the weights. The steps are then
    repeated, bit for bit, up to the bad one; from there the :class:`~hookline.engine.hooks.NonFiniteGuard` watches, so
    the bad step is left out and explained, and training goes on.

    Args:
        cfg: the whole recipe.
        resumed: what the run was resumed from: a file, True for its own folder, or nothing.
    """

    def __init__(self, cfg: DictConfig, resumed: Any) -> None:
        self._guards = cfg.train.guards
        self._log_period = cfg.train.log_period
        self._folder = Path(cfg.train.output_dir)
        self._resumed = resumed
        self._windows: list[tuple[int, int]] = []
        self._error: NonFiniteError | None = None

    @property
    def is_repeating(self) -> bool:
        """Whether the run ends at the bad step, which is repeated only to learn more about it."""
        return self._error is not None and self._guards.non_finite != "restore"

    @property
    def failed(self) -> bool:
        """Whether an attempt has failed, so that the next one must go back."""
        return self._error is not None

    def consider(self, error: NonFiniteError, trainer: SimpleTrainer) -> None:
        """Decide, the same on all ranks, what follows a loss that is not finite.

        Args:
            error: what ended training.
            trainer: the trainer that it ended.

        Raises:
            NonFiniteError: if the run shall end.
        """
        guard = _guard_of(trainer)
        windows = guard.watched if guard is not None else []
        self._say_where(trainer)
        if self._error is not None and self.is_repeating:
            raise error
        again = any(first <= error.iteration <= last for first, last in windows)
        if guard is None or self._guards.non_finite == "skip" or again:
            raise error if self._guards.non_finite != "raise" else error.with_line(HINT)
        recent = [first for first, _ in windows if first > error.iteration - self._guards.window]
        if len(recent) >= self._guards.max_restores and self._guards.non_finite == "restore":
            limit = f"{len(recent)} times the run went back in {self._guards.window} iterations; no more are allowed"
            raise error.with_line(limit) from error
        self._windows = [*windows, (max(error.iteration - 1, 0), error.iteration + self._log_period)]
        self._error = copy.copy(error)  # without the frames, which hold the whole trainer

    def go_back(self, checkpointer: Checkpointer) -> int:
        """Load the newest checkpoint from before the bad step.

        Args:
            checkpointer: of the new attempt.

        Returns:
            The iteration to go on with; 0 if there is none, then nothing was loaded.

        Raises:
            NonFiniteError: if there is none, and the run was to go on.
        """
        assert self._error is not None
        bad = self._error.iteration
        path = self._agree_on_newest_before(bad - 1, checkpointer)
        if path:
            start = checkpointer.resume(path) + 1
            logger.warning("going back to iteration %d, before the one that was not finite, by %s", start, path)
            return start
        if not self.is_repeating:
            text = "there is no checkpoint from before it to go back to; a smaller train.checkpointer.period makes one"
            raise self._error.with_line(text) from self._error
        logger.warning("going back to the beginning to learn where the number that is not finite comes from")
        return 0

    def prepare(self, trainer: SimpleTrainer) -> int | None:
        """Let the new attempt watch the bad step.

        Args:
            trainer: of the new attempt, with its state.

        Returns:
            The iteration at which the attempt ends, where it is only to learn more.
        """
        guard = _guard_of(trainer)
        assert guard is not None
        assert self._error is not None
        for window in self._windows:
            if window not in guard.watched:
                guard.watch(*window)
        return self._error.iteration + 1 if self.is_repeating else None

    def give_up(self) -> None:
        """End a run whose bad step was repeated without being bad again.

        Raises:
            NonFiniteError: always.
        """
        assert self._error is not None
        text = "repeated from its checkpoint the step was finite: what the model computes is not the same each time"
        raise self._error.with_line(text) from self._error

    def _agree_on_newest_before(self, iteration: int, checkpointer: Checkpointer) -> str:
        """Let rank 0 look for all; an error there is an error everywhere."""
        found: str | OSError = ""
        if is_main_process():
            try:
                found = self._newest_before(iteration, checkpointer)
            except OSError as error:
                found = error
        found = broadcast(found)
        if isinstance(found, OSError):
            raise found
        return found

    def _newest_before(self, iteration: int, checkpointer: Checkpointer) -> str:
        """Find the newest whole file of this run whose last step lies before an iteration."""
        oldest = 0 if self._resumed else (self._folder / "config.yaml").stat().st_mtime_ns  # written when a run begins
        own = [file for file in map(Path, checkpointer.get_all_checkpoint_files()) if file.stat().st_mtime_ns >= oldest]
        candidates = {}
        for file in [*own, *([Path(self._resumed)] if isinstance(self._resumed, str) else [])]:
            with contextlib.suppress(CheckpointError):
                outline = read_outline(file)
                last = outline.get("iteration")
                if isinstance(last, int) and last < iteration and not outline.get("meta", {}).get("slim"):
                    candidates[file] = last
        newest_first = sorted(candidates, key=lambda file: candidates[file], reverse=True)
        return str(next((file for file in newest_first if damage_of(file) is None), ""))

    @staticmethod
    def _say_where(trainer: SimpleTrainer) -> None:
        """Tell whether the weights are spoilt, or only the losses."""
        names = non_finite_parameters(trainer.model)
        if names:
            logger.error("not finite by now: %d weights and buffers, such as %s", len(names), ", ".join(names[:5]))


def _guard_of(trainer: SimpleTrainer) -> hooks.NonFiniteGuard | None:
    return next((hook for hook in trainer._hooks if isinstance(hook, hooks.NonFiniteGuard)), None)

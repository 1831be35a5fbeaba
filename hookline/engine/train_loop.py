"""The loop that calls the hooks."""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hookline.distributed import all_gather, get_world_size, synchronize
from hookline.engine.events import EventStorage
from hookline.engine.hook_base import MOMENTS, HookBase, SkipStep, StopTraining

__all__ = ["MOMENTS", "HookBase", "SkipStep", "StopTraining", "TrainerBase"]

logger = logging.getLogger(__name__)


class TrainerBase:
    """The loop with hooks, which assumes nothing about the step; subclasses write ``run_step``."""

    step_skipped = False
    """Whether the last step changed no weights."""

    def __init__(self) -> None:
        self.iter = self.start_iter = self.max_iter = 0
        self.storage = EventStorage()
        self._hooks: list[HookBase] = []
        self._calls: dict[str, list[Callable[[], None]]] = {moment: [] for moment in MOMENTS}
        self._shared_keys: set[str] = set()
        self._restored: Mapping[str, Any] = {}
        self._elapsed_before_s = 0.0
        self._started: float | None = None

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append hooks; they act in the order of the list.

        Args:
            hooks: the hooks; None entries are left out, so that a list can say ``hook if condition else None``.

        Raises:
            TypeError: if something in the list is no hook; names it.
        """
        accepted = [hook for hook in hooks if hook is not None]
        for place, hook in enumerate(accepted):
            if not isinstance(hook, HookBase):
                raise TypeError(f"register_hooks: entry {place} is {_describe(hook)}, expected a HookBase")
        for hook in accepted:
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(accepted)
        self._compile()

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the steps ``start_iter`` to ``max_iter - 1`` with all hooks.

        Args:
            start_iter: the first step, from 0.
            max_iter: the number of steps of the whole run.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        logger.info("Training from iteration %d to %d", start_iter, max_iter)
        finished = False
        with self._new_storage(start_iter):
            try:
                self.before_train()
                try:
                    for self.iter in range(start_iter, max_iter):
                        self.before_step()
                        self.run_step()
                        self.after_step()
                    self.iter = max(start_iter, max_iter)
                except StopTraining as reason:
                    logger.info("Training ends before iteration %d: %s", self.iter, reason)
                    self.max_iter = self.iter
                finished = True
            finally:
                self._end(finished)

    def run_step(self) -> None:
        """Do one step; for subclasses.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement run_step()")

    def before_train(self) -> None:
        """Call the hooks' ``before_train``."""
        self._compile()  # recipes reorder self._hooks
        everywhere = all_gather([key for key, _ in self._keyed_hooks()], patient=True)
        self._shared_keys = set(everywhere[0]).intersection(*everywhere[1:])
        for call in self._calls["before_train"]:
            call()

    def before_step(self) -> None:
        """Call the hooks' ``before_step``."""
        self.storage.iter = self.iter
        for call in self._calls["before_step"]:
            call()

    def after_backward(self) -> None:
        """Call the hooks' ``after_backward``."""
        for call in self._calls["after_backward"]:
            call()

    def after_step(self) -> None:
        """Call the hooks' ``after_step``."""
        for call in self._calls["after_step"]:
            call()

    def after_train(self) -> None:
        """Call the ``after_train`` of every hook, whatever the others raise; the first exception is raised at last.

        Raises:
            Exception: the first one of a hook.
        """
        self.storage.iter = self.iter
        first: Exception | None = None
        for call in self._calls["after_train"]:
            try:
                call()
            except Exception as error:
                if first is None:
                    first = error
                    self._give_up_the_end()
                else:
                    logger.error("a further hook failed in after_train", exc_info=error)
        if first is not None:
            raise first

    def _give_up_the_end(self) -> None:
        """Let the hooks to come take the run, on several ranks, for one that did not reach its end.

        What they do at the end together with other ranks would get mixed up with what those wait for now.
        """
        if get_world_size() > 1 and self.iter >= self.max_iter:
            self.max_iter = self.iter + 1

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, those before a resume included."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._elapsed_before_s + running

    def flush_metrics(self, hook: HookBase | None = None) -> None:
        """Bring all measured values to the host and raise if one of them must stop the run; before saving, say.

        Args:
            hook: the hook that asks. If it is registered on every rank, all ranks do this together.
        """
        self.storage.check()

    def wait_for_main(self, hook: HookBase) -> None:
        """Let the other ranks wait for what rank 0 alone did, such as writing: patiently and on the CPU.

        Else they would wait for it in the next collective of their devices, whose time-out is shorter.

        Args:
            hook: the hook that asks; nobody waits unless it is registered on every rank.
        """
        if get_world_size() > 1 and self._is_shared(hook):
            synchronize()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the trainer itself; hooks are in :meth:`hooks_state_dict`."""
        return {"iteration": self.iter, "elapsed_s": self.elapsed_s, "storage": self.storage.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave; before ``train``.

        Args:
            state: what was saved.
        """
        self.iter = state.get("iteration", self.iter)
        self._elapsed_before_s = float(state.get("elapsed_s", 0.0))
        self._restored = state.get("storage", {})

    def hooks_state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the states of all hooks that have one, each under its unique key."""
        states = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        return {key: state for key, state in states.items() if state}

    def load_hooks_state_dict(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Give every hook its state back; states without a hook are named in a warning.

        Args:
            states: what :meth:`hooks_state_dict` gave.
        """
        hooks = dict(self._keyed_hooks())
        for key in states.keys() & hooks.keys():
            hooks[key].load_state_dict(states[key])
        if unused := sorted(states.keys() - hooks.keys()):
            logger.warning("no hook takes the saved state of %s; hooks here: %s", ", ".join(unused), ", ".join(hooks))

    def checkpointables(self) -> dict[str, Any]:
        """Return what a checkpoint of this run holds besides the model, by name; each has a ``state_dict``."""
        return {"trainer": weakref.proxy(self), "hooks": _HooksState(self)}

    def _new_storage(self, start_iter: int) -> EventStorage:
        self.storage = EventStorage(start_iter)
        self.storage.load_state_dict(self._restored)
        self._restored = {}
        self._started = time.perf_counter()
        return self.storage

    def _end(self, finished: bool) -> None:
        """Run ``after_train`` without letting its failure hide the one that ended training."""
        try:
            self.after_train()
        except Exception:
            if finished:
                raise
            logger.exception("a hook failed in after_train, after training itself had failed")
        finally:
            self._elapsed_before_s, self._started = self.elapsed_s, None

    def _compile(self) -> None:
        """List the calls of each moment once, so that a step calls only methods that do something."""
        for moment in MOMENTS:
            self._calls[moment] = [getattr(hook, moment) for hook in self._hooks if hook.wants(moment)]

    def _is_shared(self, hook: HookBase) -> bool:
        """Tell whether every rank has registered this hook, so that it may make all ranks do something together."""
        return any(known is hook and key in self._shared_keys for key, known in self._keyed_hooks())

    def _keyed_hooks(self) -> Iterator[tuple[str, HookBase]]:
        seen: Counter[str] = Counter()
        for hook in self._hooks:
            seen[hook.state_key] += 1
            number = seen[hook.state_key]
            yield (hook.state_key if number == 1 else f"{hook.state_key}#{number}"), hook


class _HooksState:
    """All hooks' states as one thing with ``state_dict`` and ``load_state_dict``."""

    def __init__(self, trainer: TrainerBase) -> None:
        self._trainer = weakref.proxy(trainer)

    def state_dict(self) -> dict[str, Any]:
        return self._trainer.hooks_state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._trainer.load_hooks_state_dict(state)


def _describe(something: Any) -> str:
    if isinstance(something, type):
        hint = f"; did you mean {something.__name__}(...)?" if issubclass(something, HookBase) else ""
        return f"the class {something.__name__}{hint}"
    return f"{something!r} of type {type(something).__qualname__}"

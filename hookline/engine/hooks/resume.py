"""What a resumed run takes over, starts anew, does differently and misses."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from hookline.distributed import get_world_size, is_main_process
from hookline.engine.hook_base import HookBase

__all__ = ["ResumeReport"]

# What decides which samples a step gets; the rest of a loader's fingerprint, its seed, is the run's seed.
_DATA = {
    "dataset_size": "number of samples",
    "ids_sha256": "the samples' ids (hash)",
    "order_sha256": "grouping, repetition or shuffling (hash)",
    "total_batch_size": "global batch size",
}
_NUMBERS = (int, float, bool)

logger = logging.getLogger(__name__)


class ResumeReport(HookBase):
    """Logs one table when a run is resumed, and refuses to go on with other data.

    Its state in the checkpoint is a record of the run's settings. Register it behind the schedule, so that it can
    tell what happens to the learning rate when ``max_iter`` is changed.

    Args:
        settings: further plain values to be compared, by name.
        allow_changed_data: go on although the data set or the global batch size changed.
    """

    def __init__(self, settings: Mapping[str, Any] | None = None, *, allow_changed_data: bool = False) -> None:
        self._settings = dict(settings or {})
        self._allow_changed_data = allow_changed_data
        self._saved: dict[str, Any] | None = None
        self._data: tuple[Any, dict[str, Any] | None] = (None, None)

    def before_train(self) -> None:
        """Log the table of a resumed run."""
        saved, self._saved = self._saved, None
        if self.trainer.start_iter == 0 or not is_main_process():
            return
        if saved is None:
            logger.warning(
                "Resumed at iteration %d. The checkpoint has no record of the settings of its run: what was changed "
                "since is not known",
                self.trainer.start_iter,
            )
            return
        from tabulate import tabulate

        rows = [*self._taken_over(saved), *self._changes(saved)]
        spent = timedelta(seconds=int(self.trainer.elapsed_s))
        title = f"Resumed at iteration {self.trainer.start_iter} of {self.trainer.max_iter}, after {spent} of training"
        logger.info("%s\n%s", title, tabulate(rows, headers=("", "before", "now", ""), disable_numparse=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the record of the run's settings."""
        trainer = self.trainer
        record = {
            "max_iter": trainer.max_iter,
            "accumulate": getattr(trainer, "accumulate", 1),
            "seed": getattr(trainer, "seed", None),
            "processes": get_world_size(),
            "workers": getattr(trainer.data_loader, "num_workers", None),
            "precision": type(getattr(trainer, "precision", None)).__name__,
            "optimizer": type(trainer.optimizer).__name__,
        }
        return {
            "run": record,
            "defaults": {k: v for k, v in trainer.optimizer.defaults.items() if type(v) in _NUMBERS},
            "settings": self._settings,
            "data": self._fingerprint(),
            "next_lr": self._rate(),
            "hooks": [key for key, _ in trainer._keyed_hooks()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare the data with that of the run so far.

        Raises:
            ValueError: if they differ and that was not allowed.
        """
        self._saved = dict(state)
        changes = [f"{what}: {before} before, {now} now" for what, before, now in self._data_changes(state)]
        if not changes:
            return
        if not self._allow_changed_data:
            raise ValueError(
                f"the data changed since the run was started ({'; '.join(changes)}). Undo that, or go on with the "
                "changed data by train.allow_changed_data=True"
            )
        logger.warning("the data changed (%s): the run goes on, but not as if it had never stopped", "; ".join(changes))

    def _taken_over(self, saved: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        trainer = self.trainer
        here = {key for key, hook in trainer._keyed_hooks()}
        before = set(saved["hooks"])
        yield "model, optimizer, clock, metrics", "", "", "resumed"
        if (precision := getattr(trainer, "precision", None)) and precision.state_dict():
            is_same = saved["run"]["precision"] == type(precision).__name__
            yield "loss scaler", "", "", "resumed" if is_same else "starts fresh"
        with_state = [key for key, hook in trainer._keyed_hooks() if hook is not self and hook.state_dict()]
        if resumed := [key for key in with_state if key in before]:
            yield f"hooks: {', '.join(resumed)}", "", "", "resumed"
        if fresh := sorted(here - before):
            yield f"hooks: {', '.join(fresh)}", "", "", "new, start fresh"
        if missing := sorted(before - here):
            yield f"hooks: {', '.join(missing)}", "", "", "missing in this run"

    def _changes(self, saved: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
        current = self.state_dict()
        for name, before, now in _differences(saved["run"], current["run"]):
            harmless = name in ("processes", "workers")
            yield name, str(before), str(now), "changed; samples and order stay" if harmless else "changed"
        for name, before, now in _differences(saved["settings"], current["settings"]):
            yield name, _short(before), _short(now), "changed"
        for name, before, now in self._data_changes(saved):
            yield name, str(before), str(now), "changed, as allowed"
        for name, before, now in _differences(saved["defaults"], current["defaults"]):
            yield f"optimizer.{name}", str(before), str(now), "no effect: the resumed optimizer's is kept"
        before, now = saved["next_lr"], current["next_lr"]
        yield "learning rate of the next step", f"{before:.6g}", f"{now:.6g}", "kept" if now == before else "changed"

    def _data_changes(self, saved: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        before, now = saved["data"], self._fingerprint()
        found = []
        if before is not None and now is not None:
            found = [(_DATA[name], old, new) for name, old, new in _differences(before, now) if name in _DATA]
        accumulate = getattr(self.trainer, "accumulate", 1)
        if saved["run"]["accumulate"] != accumulate:
            found.append(("batches per step (accumulate)", saved["run"]["accumulate"], accumulate))
        return found

    def _fingerprint(self) -> dict[str, Any] | None:
        loader = self.trainer.data_loader
        if self._data[0] is not loader:  # hashing a large data set takes its time, and this is asked at every save
            fingerprint = getattr(loader, "fingerprint", None)
            self._data = (loader, fingerprint() if callable(fingerprint) else None)
        return self._data[1]

    def _rate(self) -> float:
        """The learning rate of the group with most parameters; after a step it is that of the next one."""
        groups = self.trainer.optimizer.param_groups
        return float(max(groups, key=lambda group: sum(param.numel() for param in group["params"]))["lr"])


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in [*before, *(name for name in now if name not in before)]:
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."

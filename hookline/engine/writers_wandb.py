"""Weights & Biases, online or offline."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline.engine.visuals import Picture
from hookline.engine.wandb_file import read_history
from hookline.engine.writers_remote import RemoteWriter, Sent

__all__ = ["WandbWriter"]

AXIS = "iteration"
SETTLE_S = 3.0  # W&B's own process may write for so long after the training process was killed


class WandbWriter(RemoteWriter):
    """Logs a run to Weights & Biases; needs ``pip install 'hookline[wandb]'``.

    The axis of all charts is ``iteration``. A row that W&B has is not logged again, so a resumed run has one curve,
    also where its steps begin before those that were logged last.

    Args:
        output_dir: the run's folder; W&B's files go into ``wandb`` in it.
        config: the settings of the run, flat.
        project: W&B's project.
        entity: the user or team.
        mode: ``online`` or ``offline``; by default what ``WANDB_MODE`` says, else online.
        settings: further settings of W&B, see ``wandb.Settings``.
        init: further arguments of ``wandb.init``, such as ``name``, ``group``, ``tags`` and ``notes``.
        remote: the arguments of :class:`~hookline.engine.writers_remote.RemoteWriter`, such as ``log_checkpoints``.
    """

    service = "wandb"

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        project: str | None = None,
        entity: str | None = None,
        mode: str | None = None,
        settings: Mapping[str, Any] | None = None,
        init: Mapping[str, Any] | None = None,
        **remote: Any,
    ) -> None:
        super().__init__(output_dir, config=config, **remote)
        self._init = {"project": project, "entity": entity, "mode": mode, **(init or {})}
        self._settings = dict(settings or {})
        self._run: Any = None
        self._next_step: int | None = None

    def _open(self, is_known: bool) -> Sent | None:
        if self._run is not None:
            return self._sent
        import wandb

        sent, next_step = self._logged() if is_known else ({}, 0)
        settings = {
            "console": "off",
            "quiet": True,
            "init_timeout": 30,
            "finish_timeout": self.timeout_s,
            **self._settings,
        }
        self._run = wandb.init(
            **self._init,
            id=self.run_id,
            dir=str(self.output_dir),
            resume="allow",
            config=self.config,
            allow_val_change=True,
            settings=wandb.Settings(**settings),
        )
        self._run.define_metric("*", step_metric=AXIS)
        if self._run.resumed:  # only the server of an online run knows that
            last = self._run.summary.get(AXIS)
            return None if last is None else _up_to(int(last), sent or {})
        self._next_step = next_step or None
        return sent

    def _log(self, iteration: int, scalars: Mapping[str, float], moment: float) -> None:
        self._log_row({AXIS: iteration, **scalars})

    def _log_picture(self, picture: Picture) -> None:
        from wandb import Image

        self._log_row({AXIS: picture.iteration, picture.name: Image(picture.image)})

    def _log_checkpoint(self, path: Path, label: str) -> None:
        from wandb import Artifact

        artifact = Artifact(f"checkpoint-{self.run_id}", type="model", metadata={"file": path.name})
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact, aliases=[label, "latest"])

    def _finish(self, finished: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)
            self._run = None

    def _log_row(self, row: Mapping[str, Any]) -> None:
        step, self._next_step = self._next_step, None
        self._run.log(row, step=step, commit=True)

    def _logged(self) -> tuple[Sent | None, int]:
        """Read the files of earlier processes of this run: what they logged, None without one, and W&B's next step."""
        folders = {str(self.output_dir), self._state.get("output_dir", str(self.output_dir))}
        files = [path for folder in folders for path in Path(folder).glob(f"wandb/*run-*-{self.run_id}/run-*.wandb")]
        sent: Sent = {}
        next_step = 0
        for path in files:
            time.sleep(max(0.0, min(SETTLE_S, path.stat().st_mtime + SETTLE_S - time.time())))
            for row in read_history(path):
                next_step = max(next_step, row["_step"] + 1)
                if AXIS in row:
                    names = {name for name in row if name != AXIS and not name.startswith("_")}
                    sent.setdefault(row[AXIS], set()).update(names)
        return (sent if files else None), next_step


class _Everything(set[str]):
    """The names of an iteration about which only its number is known."""

    def __contains__(self, name: object) -> bool:
        return True


def _up_to(last: int, sent: Sent) -> Sent:
    """Take all iterations up to the last one as logged; of those in ``sent`` it is known what was logged."""
    known = {iteration: names for iteration, names in sent.items() if iteration <= last}
    return {**dict.fromkeys(range(last + 1), _Everything()), **known}

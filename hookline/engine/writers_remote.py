"""What writers to a tracking service share: a run that keeps its identity, a thread that sends, nothing sent twice."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hookline.engine.events import get_event_storage
from hookline.engine.metrics_file import read_rows
from hookline.engine.news import NewScalars, restored_names
from hookline.engine.sender import Sender
from hookline.engine.visuals import Picture
from hookline.engine.writers_base import EventWriter

__all__ = ["CHECKPOINT_CHOICES", "RemoteWriter", "Sent"]

CHECKPOINT_CHOICES = ("last", "best", "all")

Sent = dict[int, set[str]]
"""Names by iteration of what a service has already."""

logger = logging.getLogger(__name__)


class RemoteWriter(EventWriter):
    """Sends scalars, pictures, settings and checkpoints to a service, from a thread of its own.

    The run has an identity that is chosen here and kept in ``output_dir`` and in each checkpoint; a resumed run goes
    on under it. What the service has already is not sent again. What it lacks of the steps before a resume, because
    the process was killed or the service was down, is taken from ``metrics.json``.

    Args:
        output_dir: the run's folder, with ``metrics.json``.
        config: the settings of the run, flat.
        run_id: the identity; by default that of the resumed run, or a new one.
        continued: the run in ``output_dir`` goes on, even without a checkpoint.
        checkpoint_dir: the folder of the checkpoints; by default ``output_dir``.
        log_checkpoints: which checkpoints are sent: ``last`` or ``best`` when the run ends, ``all`` as they appear,
            or False.
        timeout_s: how long the end of a run waits for what is not sent yet.
        window_size: smoothed metrics are medians over that many iterations.

    Raises:
        ValueError: if ``log_checkpoints`` is something else.
    """

    service = "service"
    """Its name in messages and files; for subclasses."""

    open_s = 10.0
    """How long the start of a run waits for the service at most, so that data workers are forked in a quiet process."""

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        continued: bool = False,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        log_checkpoints: str | bool = False,
        timeout_s: float = 60.0,
        window_size: int = 20,
    ) -> None:
        if log_checkpoints is not False and log_checkpoints not in CHECKPOINT_CHOICES:
            raise ValueError(f"log_checkpoints={log_checkpoints!r}: expected {', '.join(CHECKPOINT_CHOICES)} or False")
        self.output_dir = Path(output_dir)
        self.checkpoint_dir = Path(checkpoint_dir or output_dir)
        self.config = dict(config or {})
        self.run_id = None if run_id is None else str(run_id)
        self.timeout_s = timeout_s
        self._continued = continued
        self._log_checkpoints = log_checkpoints
        self._news = NewScalars(window_size)
        self._state: Mapping[str, Any] = {}
        self._sent: Sent = {}
        self._sender: Sender | None = None
        self._last_picture = 0
        self._known_checkpoints: dict[str, float] = {}
        self._finished = False

    def begin(self, start_iter: int) -> None:
        """Open the run at the service, at most a few seconds long, and send what it lacks of earlier steps.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """
        is_resumed = start_iter > 0 or self._continued
        is_known = self._identify(is_resumed)
        rows = read_rows(str(self.output_dir / "metrics.json"), start_iter) if is_resumed else {}
        if rows:
            last = max(rows)
            self._news.begin(last, rows[last])
        else:
            self._news.begin(start_iter - 1, restored_names(start_iter - 1))
        self._finished = False
        self._known_checkpoints = dict(self._checkpoints()) if is_resumed else {}
        self._sender = Sender(self.service, f"The scalars are in {self.output_dir / 'metrics.json'}")
        self._sender.put(partial(self._start, is_known, start_iter, rows))
        self._sender.wait(self.open_s)

    def catch_up(self) -> None:
        """Send what was measured in the step before the first one and is not in ``metrics.json``."""
        self.write()

    def write(self) -> None:
        """Hand new scalars and pictures to the thread."""
        sender, moment = self._sender, time.time()
        if sender is None:
            return
        for iteration, scalars in self._news.take().items():
            sender.put(partial(self._send_row, iteration, scalars, moment))
        for picture in get_event_storage().pictures():
            if picture.number > self._last_picture:
                self._last_picture = picture.number
                sender.put(partial(self._send_picture, picture._replace(image=_pixels(picture.image))))
        if self._log_checkpoints == "all":
            sender.put(self._send_new_checkpoints)

    def conclude(self, finished: bool) -> None:
        """Send the checkpoints that are due at the end.

        Args:
            finished: whether training came to its end.
        """
        self._finished = finished
        if self._sender is not None and self._log_checkpoints:
            self._sender.put(self._send_last_checkpoints)

    def close(self) -> None:
        """Wait for what is not sent yet, with a time-out, and close the run."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.put(partial(self._finish, self._finished))
            sender.close(self.timeout_s)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's identity."""
        return {} if self.run_id is None else {"run_id": self.run_id, "output_dir": str(self.output_dir)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know the identity again."""
        self._state = dict(state)

    def _open(self, is_known: bool) -> Sent | None:
        """Open the run of the identity; for subclasses.

        Args:
            is_known: there was such a run, in an earlier process.

        Returns:
            What the service has of it; None if that cannot be found out.
        """
        raise NotImplementedError

    def _log(self, iteration: int, scalars: Mapping[str, float], moment: float) -> None:
        """Send scalars; for subclasses."""
        raise NotImplementedError

    def _log_picture(self, picture: Picture) -> None:
        """Send a picture (H, W, 3), uint8; for subclasses."""
        raise NotImplementedError

    def _log_checkpoint(self, path: Path, label: str) -> None:
        """Send a checkpoint, a file or a folder; for subclasses."""
        raise NotImplementedError

    def _finish(self, finished: bool) -> None:
        """Close the run; for subclasses."""
        raise NotImplementedError

    def _identify(self, is_resumed: bool) -> bool:
        """Choose the identity and keep it; returns whether an earlier process had it."""
        file = self.output_dir / f"run_id.{self.service.lower()}"
        earlier: list[str] = []
        if is_resumed:
            kept = file.read_text("utf-8").strip() if file.is_file() else ""
            earlier = [run_id for run_id in (self._state.get("run_id"), kept) if run_id]
        self.run_id = self.run_id or next(iter(earlier), None) or secrets.token_hex(4)
        is_known = self.run_id in earlier
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{self.run_id}\n", "utf-8")
        except OSError as error:
            logger.warning("%s: the run's identity cannot be kept in %s: %s", self.service, file, error)
        return is_known

    def _start(self, is_known: bool, start_iter: int, rows: Mapping[int, Mapping[str, float]]) -> None:
        sent = self._open(is_known)
        if sent is None:
            sent, rows = {iteration: set(row) for iteration, row in rows.items()}, {}
        elif sent and not is_known and not self._sent:  # `_sent` would be an earlier try of this process
            logger.warning(
                "%s has a run %r already, which is not continued: this start goes on in it, and what it has of a step "
                "is not sent, so its curves hide the new ones. Give another run_id, or --resume to continue it",
                *(self.service, self.run_id),
            )
        self._sent = sent
        for iteration, row in rows.items():
            self._send_row(iteration, row, time.time())

    def _send_row(self, iteration: int, scalars: Mapping[str, float], moment: float) -> bool:
        """Send what is new; returns, as all that send do, whether there was anything."""
        before = self._sent.get(iteration, set())
        new = {name: value for name, value in scalars.items() if name not in before}
        if new:
            self._log(iteration, new, moment)
            self._sent[iteration] = before | set(new)
        return bool(new)

    def _send_picture(self, picture: Picture) -> bool:
        if picture.name in self._sent.get(picture.iteration, ()):
            return False
        self._log_picture(picture)
        self._sent.setdefault(picture.iteration, set()).add(picture.name)
        return True

    def _checkpoints(self) -> dict[str, float]:
        """List the checkpoints in their folder: (name, time of change)."""
        found = {}
        for path in sorted(self.checkpoint_dir.glob("model_*")):
            if path.suffix == ".pth" or path.is_dir():
                found[path.name] = path.stat().st_mtime
        return found

    def _send_new_checkpoints(self) -> bool:
        any_sent = False
        for name, changed in self._checkpoints().items():
            if self._known_checkpoints.get(name) != changed:
                any_sent |= self._send_checkpoint(name)
                self._known_checkpoints[name] = changed
        return any_sent

    def _send_last_checkpoints(self) -> bool:
        if self._log_checkpoints == "all":
            return self._send_new_checkpoints()
        if self._log_checkpoints == "best":
            names = [name for name in self._checkpoints() if name.startswith("model_best")]
        else:
            tag = self.checkpoint_dir / "last_checkpoint"
            names = [tag.read_text("utf-8").strip()] if tag.is_file() else []
        sent = [self._send_checkpoint(name) for name in names]
        return any(sent)

    def _send_checkpoint(self, name: str) -> bool:
        path = self.checkpoint_dir / name
        if not path.exists():  # the run needed the room for newer ones
            return False
        self._log_checkpoint(path, path.stem)
        return True


def _pixels(image: Any) -> np.ndarray:
    """Turn an image of the storage (3, H, W), uint8 or float in [0, 1], into (H, W, 3), uint8."""
    pixels = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255.0).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))

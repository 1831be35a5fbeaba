"""MLflow: a tracking server, a database such as SQLite, or a folder."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hookline.engine.visuals import Picture
from hookline.engine.writers_remote import RemoteWriter, Sent

__all__ = ["MLflowWriter"]

RUN_TAG = "hookline.run"
BATCH = 100  # parameters that MLflow takes at once
LONGEST_VALUE = 6000  # characters of a parameter
CONNECT_S = 5.0
CREATE_S = 60.0  # a database that is killed while MLflow makes its tables can never be used


class MLflowWriter(RemoteWriter):
    """Logs a run to MLflow; needs ``pip install 'hookline[mlflow]'``.

    The run is found again by its tag ``hookline.run``. A value that MLflow has for a metric and step is not logged
    again, so a resumed run has one curve, also where its steps begin before those that were logged last.

    Args:
        output_dir: the run's folder.
        config: the settings of the run, flat; they become parameters. What a resumed run sets otherwise becomes a tag
            ``changed.NAME``, since MLflow's parameters never change.
        tracking_uri: such as ``http://host:5000`` or ``sqlite:///mlflow.db``; by default MLflow's own.
        experiment: the experiment's name; made if there is none.
        run_name: shown by MLflow; made up by default.
        tags: further tags.
        artifact_location: where artifacts of a new experiment go; by default what the server says.
        remote: the arguments of :class:`~hookline.engine.writers_remote.RemoteWriter`, such as ``log_checkpoints``.
    """

    service = "mlflow"

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
        experiment: str = "Default",
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        artifact_location: str | None = None,
        **remote: Any,
    ) -> None:
        super().__init__(output_dir, config=config, **remote)
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._artifact_location = artifact_location
        if tracking_uri is not None and not _is_web(tracking_uri):
            self.open_s = CREATE_S
        self._client: Any = None
        self._id = ""

    def _open(self, is_known: bool) -> Sent | None:
        from mlflow import MlflowClient, get_tracking_uri

        _expect_answer(self._tracking_uri or get_tracking_uri())
        self._client = client = MlflowClient(self._tracking_uri)
        experiment = self._experiment_id()
        runs = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{self.run_id}'", max_results=1)
        if runs:
            run = runs[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = client.create_run(experiment, tags={**self._tags, RUN_TAG: str(self.run_id)}, run_name=self._run_name)
        self._id = run.info.run_id
        self._log_config(run.data.params, run.data.tags)
        sent: Sent = {}
        for key in run.data.metrics:
            for metric in client.get_metric_history(self._id, key):
                sent.setdefault(metric.step, set()).add(key)
        return sent

    def _send_row(self, iteration: int, scalars: Mapping[str, float], moment: float) -> bool:
        return super()._send_row(iteration, {_key(name): value for name, value in scalars.items()}, moment)

    def _log(self, iteration: int, scalars: Mapping[str, float], moment: float) -> None:
        from mlflow.entities import Metric

        time_ms = int(moment * 1000)
        metrics = [Metric(name, value, time_ms, iteration) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def _log_picture(self, picture: Picture) -> None:
        file = f"pictures/{_key(picture.name)}/{picture.iteration:07d}.png"
        self._client.log_image(self._id, picture.image, artifact_file=file)

    def _log_checkpoint(self, path: Path, label: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._id, str(path), f"checkpoints/{path.name}")
        else:
            self._client.log_artifact(self._id, str(path), "checkpoints")

    def _finish(self, finished: bool) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
            self._client = None

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(self._experiment, artifact_location=self._artifact_location)

    def _log_config(self, known: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        settings = {_key(name): str(value)[:LONGEST_VALUE] for name, value in self.config.items()}
        new = [Param(name, value) for name, value in settings.items() if name not in known]
        for params in _batches(new):
            self._client.log_batch(self._id, params=params)
        newest = {name: tags.get(f"changed.{name}", known.get(name, value)) for name, value in settings.items()}
        changed = [RunTag(f"changed.{name}", value) for name, value in settings.items() if newest[name] != value]
        for batch in _batches(changed):
            self._client.log_batch(self._id, tags=batch)


def _key(name: str) -> str:
    """Replace what MLflow takes in no name."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def _batches(entries: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entries), BATCH):
        yield entries[start : start + BATCH]


def _is_web(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def _expect_answer(uri: str) -> None:
    """Ask whether anybody listens, since MLflow's own client tries for minutes before it gives up.

    Raises:
        OSError: if nobody does.
    """
    parts = urlsplit(uri)
    if not _is_web(uri) or not parts.hostname or parts.scheme in urllib.request.getproxies():
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), CONNECT_S).close()
    except OSError as error:
        raise OSError(f"nothing answers at {uri}: {error}") from error

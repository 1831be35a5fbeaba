"""What a run asks of, and tells, the system that manages its job: Slurm and HFAI."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import shutil
import subprocess
import time
from typing import Any

__all__ = ["go_suspend", "hfai_client", "requeue_slurm_job", "slurm_end_time"]

_SCONTROL_TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


def requeue_slurm_job() -> None:
    """Put this Slurm job back into the queue: a job that merely exits is COMPLETED and does not come back.

    Raises:
        RuntimeError: outside a Slurm job, without ``scontrol``, or if Slurm refuses.
    """
    _scontrol("requeue", _slurm_job("requeue_slurm_job"))


def slurm_end_time() -> float:
    """Return when Slurm will end this job, in seconds since the epoch.

    New versions of Slurm tell it in ``SLURM_JOB_END_TIME``, older ones are asked.

    Raises:
        RuntimeError: outside a Slurm job, or if the job has no end.
    """
    if "SLURM_JOB_END_TIME" in os.environ:
        return float(os.environ["SLURM_JOB_END_TIME"])
    job = _slurm_job("slurm_end_time")
    found = re.search(r"\bEndTime=(\S+)", _scontrol("show", "job", job))
    try:
        return time.mktime(time.strptime(found[1] if found else "", "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        raise RuntimeError(f"Slurm job {job} has no end time ({found[0] if found else 'no EndTime'})") from None


def go_suspend() -> None:
    """Tell HFAI that this job may be taken down. On the cluster it does not return; where it does, the run leaves.

    Raises:
        RuntimeError: where HFAI's client is not found.
    """
    client = hfai_client()
    if client is None:
        raise RuntimeError("go_suspend: hfai.client is not found, or this is no HFAI cluster")
    client.go_suspend()


def hfai_client() -> Any | None:
    """Give ``hfai.client`` on an HFAI cluster or in its local simulation, else None."""
    if "MARSV2_NB_NAME" not in os.environ and os.environ.get("HFAI_SIMULATE") != "1":
        return None
    try:
        return importlib.import_module("hfai.client")
    except ImportError:
        _say_once("This looks like an HFAI cluster, but hfai.client cannot be imported: its flag is not polled")
        return None


@functools.cache
def _say_once(warning: str) -> None:
    logger.warning(warning)


def _slurm_job(asked_by: str) -> str:
    if "SLURM_JOB_ID" not in os.environ:
        raise RuntimeError(f"{asked_by}: SLURM_JOB_ID is not set, this is no Slurm job")
    return os.environ["SLURM_JOB_ID"]


def _scontrol(*arguments: str) -> str:
    if shutil.which("scontrol") is None:
        raise RuntimeError(f"scontrol {' '.join(arguments)}: scontrol is not on the PATH of this job")
    command = ["scontrol", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_SCONTROL_TIMEOUT_S, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} answered {result.returncode}: {result.stderr.strip()}")
    return result.stdout

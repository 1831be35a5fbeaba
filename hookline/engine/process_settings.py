"""What a run sets in its processes: threads, how data workers start, cuDNN, the precision of matrix products."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.multiprocessing

__all__ = ["ProcessSettingError", "ProcessSettings"]

# How OpenCV itself learns it at its start, also in data workers that are not forked.
_OPENCV_THREADS = "OPENCV_FOR_THREADS_NUM"

logger = logging.getLogger(__name__)


class ProcessSettingError(RuntimeError):
    """A setting comes too late for this process."""


@dataclass(frozen=True)
class ProcessSettings:
    """The settings of one process; what is None is left as it is.

    Attributes:
        num_threads: CPU threads of one of torch's operations, at least 1.
        num_interop_threads: CPU threads for operations beside each other, at least 1. Can be set once a process, before
            torch starts them.
        opencv_num_threads: threads of OpenCV's functions, here and in data workers; 0 and 1 do without threads.
        mp_start_method: how data workers start: ``fork``, ``spawn`` or ``forkserver``.
        sharing_strategy: how tensors come from data workers: ``file_descriptor`` or ``file_system``.
        cudnn_benchmark: let cuDNN try which algorithm is fastest for each shape.
        cudnn_deterministic: let cuDNN use only algorithms that give the same result each time.
        matmul_precision: of float32 matrix products: ``highest``, ``high`` or ``medium``.
    """

    num_threads: int | None = None
    num_interop_threads: int | None = None
    opencv_num_threads: int | None = None
    mp_start_method: str | None = None
    sharing_strategy: str | None = None
    cudnn_benchmark: bool | None = None
    cudnn_deterministic: bool | None = None
    matmul_precision: str | None = None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings while the block runs, then set back all that can be: the inter-op threads cannot.

        Raises:
            ProcessSettingError: if torch has started its inter-op threads already, with another number.
        """
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        with contextlib.ExitStack() as stack:
            for name, value in given.items():
                read, write = _ACCESS[name]
                if name != "num_interop_threads":
                    stack.callback(write, read())
                write(value)
            if given:
                logger.info("Process settings: %s", ", ".join(f"{name}={value}" for name, value in given.items()))
            yield


def _set_interop_threads(count: int) -> None:
    if count == torch.get_num_interop_threads():
        return
    try:
        torch.set_num_interop_threads(count)
    except RuntimeError as error:
        raise ProcessSettingError(
            f"train.env.num_interop_threads={count}: torch has {torch.get_num_interop_threads()} running already; set "
            "it before anything else computes in this process"
        ) from error


def _opencv_threads() -> tuple[str | None, int | None]:
    # OpenCV's variable, and its number where it is installed
    cv2 = _opencv()
    return os.environ.get(_OPENCV_THREADS), None if cv2 is None else cv2.getNumThreads()


def _set_opencv_threads(count: int | tuple[str | None, int | None]) -> None:
    variable, threads = (str(max(1, count)), count) if isinstance(count, int) else count
    if variable is None:
        os.environ.pop(_OPENCV_THREADS, None)
    else:
        os.environ[_OPENCV_THREADS] = variable
    cv2 = _opencv()
    if cv2 is not None and threads is not None:
        cv2.setNumThreads(threads)


def _opencv() -> Any:
    is_there = "cv2" in sys.modules or importlib.util.find_spec("cv2") is not None
    return importlib.import_module("cv2") if is_there else None


def _flag_of_cudnn(name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return lambda: getattr(torch.backends.cudnn, name), lambda value: setattr(torch.backends.cudnn, name, value)


# How each setting is read, and how it is written.
_ACCESS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "num_threads": (torch.get_num_threads, torch.set_num_threads),
    "num_interop_threads": (torch.get_num_interop_threads, _set_interop_threads),
    "opencv_num_threads": (_opencv_threads, _set_opencv_threads),
    "mp_start_method": (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda method: multiprocessing.set_start_method(method, force=True),
    ),
    "sharing_strategy": (torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy),
    "cudnn_benchmark": _flag_of_cudnn("benchmark"),
    "cudnn_deterministic": _flag_of_cudnn("deterministic"),
    "matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
}

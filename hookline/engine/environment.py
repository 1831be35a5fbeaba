"""What a run ran on: the table that bug reports need."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

import torch

import hookline

__all__ = ["collect_env", "collect_env_info"]

_PACKAGES = ("torchvision", "numpy", "fvcore", "iopath", "omegaconf", "hotcoco", "pycocotools", "pillow")
_VARIABLES = (
    "HOOKLINE_DATASETS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "SLURM_JOB_ID",
)


def collect_env() -> list[tuple[str, str]]:
    """Collect versions, devices and the variables that change a run, as rows (name, value)."""
    rows = [
        ("hookline", hookline.__version__),
        ("python", sys.version.split()[0]),
        ("platform", platform.platform()),
        ("processor", f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads"),
        ("torch", torch.__version__),
    ]
    rows += [(name, _version(name)) for name in _PACKAGES]
    rows.append(("CUDA of torch", str(torch.version.cuda)))
    if torch.cuda.is_available():
        rows.append(("cuDNN", str(torch.backends.cudnn.version())))
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            rows.append((f"GPU {index}", f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, sm_{gpu.major}{gpu.minor}"))
    else:
        rows.append(("GPU", "none that torch can use"))
    rows += [(name, os.environ[name]) for name in _VARIABLES if name in os.environ]
    return rows


def collect_env_info() -> str:
    """Format :func:`collect_env` as a table, one row a line."""
    rows = collect_env()
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()

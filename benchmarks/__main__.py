"""Run the benchmarks: ``python -m benchmarks [NAME ...]`` (all when no name is given)."""

import argparse
import datetime
import difflib
import importlib
import os
import pkgutil
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import benchmarks


def names() -> list[str]:
    """Return the names of all benchmark modules in this folder, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_"))


def cpu_model() -> str:
    """Return the processor's name as the operating system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Return the machine's memory in GiB, or NaN where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return float("nan")


def print_machine() -> None:
    """Print what a reader needs in order to compare the figures: date, machine, versions."""
    import torch
    import torchvision

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows = [
        ("date", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
        ("CPU", f"{cpu_model()}, {usable_cores()} cores"),
        ("memory", f"{memory_gib():.0f} GiB"),
        ("GPU", ", ".join(gpus) or "none"),
        ("system", platform.platform()),
        ("Python", platform.python_version()),
        ("torch, torchvision", f"{torch.__version__}, {torchvision.__version__}, {torch.get_num_threads()} threads"),
    ]
    benchmarks.print_table(rows, ("machine", ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named benchmarks and return the exit code: 0 done, 1 one of them failed, 2 unknown name."""
    known = names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(known) or '(none yet)'}")
    chosen = parser.parse_args(argv).names or known
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            parser.error(f"no benchmark named {name!r}; {hint}")
    print_machine()
    failed = []
    for name in chosen:
        print(f"\n## {name}", flush=True)
        try:
            importlib.import_module(f"benchmarks.{name}").main()
        except Exception:  # one broken benchmark shall not hide the figures of the others; the exit code tells
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

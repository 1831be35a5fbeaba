"""``hookline profile RECIPE [key=value ...]``: where the time of a training step goes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help shall not wait for torch
    from omegaconf import DictConfig

    from hookline.cli.profiled import StepTimes

__all__ = ["run"]

UNTIMED = 3  # the first steps start workers and choose kernels
ROWS = 15
NAME_WIDTH = 60
QUIET = "KINETO_LOG_LEVEL"


def run(argv: list[str]) -> int:
    """Train a few steps, first timed, then under torch's profiler, and print where the time went.

    Args:
        argv: the words behind ``hookline profile``.

    Returns:
        The exit code: 0, 1 if training failed, 2 if the call or the recipe is wrong.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    for name, least in (("wait", UNTIMED + 1), ("warmup", 1), ("steps", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is at least {least}, got {getattr(options, name)}")
    from hookline.cli.errors import report

    before = os.environ.get(QUIET)
    os.environ[QUIET] = "99"  # torch's profiler talks about its start, and about GPUs that are not there
    try:
        _profile(options)
    except Exception as error:
        return report(error)
    finally:
        if before is None:
            del os.environ[QUIET]
        else:
            os.environ[QUIET] = before
    return 0


def _profile(options: argparse.Namespace) -> None:
    from hookline.cli.errors import UsageError
    from hookline.cli.fully_sharded import shards
    from hookline.cli.process_settings import build_process_settings
    from hookline.cli.profiled import Schedule, profile_steps
    from hookline.cli.settings import load_settings
    from hookline.cli.train import parse_arguments

    # no evaluation and no checkpoint: only what belongs to a step
    words = ["--config-file", options.recipe, "--work-dir", options.out, *options.overrides]
    args = parse_arguments(words)
    cfg = load_settings(args)
    if shards(cfg):
        raise UsageError("train.fsdp: hookline profile is one process, which shards nothing; set train.fsdp=null")
    cfg.train.loggers.update(wandb=None, mlflow=None, others=None)  # it is no run
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace.json.gz"
    schedule = Schedule(UNTIMED, options.wait - UNTIMED, options.warmup, options.steps)
    with build_process_settings(cfg, args).applied():
        times, profiler = profile_steps(cfg, schedule, trace)
    print(_summary(cfg, options, times))
    print(f"\nOperators with the most time of their own, over {options.steps} steps\n\n{_operators(profiler)}")
    print(f"\nTrace: {trace} (for https://ui.perfetto.dev or chrome://tracing)")


def _summary(cfg: DictConfig, options: argparse.Namespace, times: StepTimes) -> str:
    """Say what a step consists of."""
    from tabulate import tabulate

    step, hooks = times.step_s, times.hooks_s
    compute = max(0.0, step - times.data_s - sum(hooks.values()))
    rows = [
        ("waiting for data", times.data_s),
        ("forward, backward, optimizer", compute),
        ("hooks", sum(hooks.values())),
        *((f"- {name}", seconds) for name, seconds in sorted(hooks.items(), key=lambda item: -item[1])),
        ("a step", step),
    ]
    cells = [(name, f"{seconds * 1e3:.2f}", f"{100 * seconds / step:.1f}") for name, seconds in rows]
    table = tabulate(cells, ("", "ms", "%"), colalign=("left", "right", "right"), disable_numparse=True)
    speed = f"{times.samples / step:.1f} samples/s" if times.samples else "samples are not counted"
    return (
        f"\n{options.recipe} on {times.device}, {cfg.train.precision}: means over {times.steps} steps without the "
        f"profiler, {speed} (with it a step took {times.profiled_step_s * 1e3:.0f} ms)\n\n{table}\n\n"
        f"Most memory: {times.memory}"
    )


def _operators(profiler: Any) -> str:
    from tabulate import tabulate

    events = [event for event in profiler.key_averages() if not _is_frame(event.key)]
    on_device = any(event.self_device_time_total for event in events)

    def own(event: Any) -> float:
        return event.self_device_time_total if on_device else event.self_cpu_time_total

    total = sum(map(own, events)) or 1.0
    top = sorted(events, key=own, reverse=True)[:ROWS]
    cells = [
        (
            _short(event.key),
            event.count,
            f"{event.self_cpu_time_total / 1e3:.1f}",
            *([f"{event.self_device_time_total / 1e3:.1f}"] if on_device else []),
            f"{100 * own(event) / total:.1f}",
        )
        for event in top
    ]
    headers = ("operator", "calls", "CPU ms", *(["GPU ms"] if on_device else []), "%")
    return tabulate(cells, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True)


def _is_frame(name: str) -> bool:
    """Tell whether an event only frames others."""
    return name.startswith(("ProfilerStep", "hook ", "step: ", "## "))


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookline profile",
        description="Train a few steps of a recipe in one process and print where the time goes: waiting for data, "
        "hooks, operators. Nothing is evaluated or saved.",
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="path of a recipe, or a packaged recipe's name")
    add("overrides", metavar="key=value", nargs="*", help="overrides in Hydra's grammar")
    add("--wait", type=int, default=13, metavar="N", help=f"steps without the profiler; but for the first {UNTIMED} "
        "they are timed (%(default)s)")  # fmt: skip
    add("--warmup", type=int, default=2, metavar="N", help="steps for the profiler to warm up (%(default)s)")
    add("--steps", type=int, default=5, metavar="N", help="steps that are profiled (%(default)s)")
    add("--out", metavar="DIR", default="output/profile", help="where the trace goes (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""A trainer whose steps are timed, then profiled."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from hookline.cli.compilation import compile_modules
from hookline.cli.gradients import gradient_clipper
from hookline.cli.optimizer import build_optimizer
from hookline.cli.run_hooks import RunParts, default_hooks
from hookline.cli.settings import precision_of
from hookline.config import instantiate
from hookline.engine import Checkpointer, HookBase, SimpleTrainer
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.defaults import default_device

__all__ = ["Schedule", "StepTimes", "profile_steps"]

MOMENTS = ("before_step", "after_backward", "after_step")


@dataclass(frozen=True)
class Schedule:
    """How many steps do what, one after the other.

    Attributes:
        untimed: are only made.
        timed: are timed without the profiler.
        warmup: run under the profiler, whose record of them is dropped.
        profiled: are recorded.
    """

    untimed: int
    timed: int
    warmup: int
    profiled: int

    @property
    def total(self) -> int:
        """All steps."""
        return self.untimed + self.timed + self.warmup + self.profiled


@dataclass
class StepTimes:
    """What a step took, as means over the timed steps.

    Attributes:
        device: where the model is.
        steps: how many were timed.
        samples: in a step; 0 if that is not known.
        step_s: seconds of a step.
        data_s: seconds of waiting for data in it.
        hooks_s: seconds by hook.
        profiled_step_s: seconds of a step under the profiler.
        memory: the most memory, in words.
    """

    device: str
    steps: int = 0
    samples: int = 0
    step_s: float = 0.0
    data_s: float = 0.0
    hooks_s: dict[str, float] = field(default_factory=dict)
    profiled_step_s: float = 0.0
    memory: str = ""


def profile_steps(cfg: DictConfig, schedule: Schedule, trace: Path) -> tuple[StepTimes, Any]:
    """Train as a run of the recipe does, in this process.

    Args:
        cfg: the recipe.
        schedule: how many steps do what.
        trace: file for the trace, ``.json`` or ``.json.gz``.

    Returns:
        The times, and torch's profiler with its record.
    """
    device = default_device(cfg.train.device)
    torch.manual_seed(int(cfg.train.seed))
    model = instantiate(cfg.model).to(device)
    compile_modules(cfg.train.compile, model)
    loader = instantiate(cfg.dataloader.train)
    trainer = TimedTrainer(
        create_ddp_model(model, **(cfg.train.ddp or {})),
        loader,
        build_optimizer(cfg, model),
        gather_metric_period=cfg.train.log_period,
        precision=precision_of(cfg),
        accumulate=cfg.train.accumulate,
        grad_clip=gradient_clipper(cfg.train.grad_clip),
        seed=cfg.train.seed,
    )
    stage = Stage(schedule, trace)
    checkpointer = Checkpointer(model, "", trainer=trainer)  # without a folder it saves nothing
    parts = RunParts(cfg, model, loader, checkpointer, None, schedule.total)
    trainer.register_hooks([*default_hooks(parts), stage])
    trainer.train(0, schedule.total)
    times = StepTimes(str(device), schedule.timed, memory=_most_memory(device))
    times.samples = getattr(loader, "batch_size", 0) * cfg.train.accumulate
    times.step_s, times.profiled_step_s = stage.timed_s / schedule.timed, stage.profiled_s / schedule.profiled
    first = schedule.untimed
    waits = [wait for wait, step in trainer.storage.history("data_time").values() if 0 <= step - first < schedule.timed]
    times.data_s = sum(waits) / schedule.timed
    times.hooks_s = {name: seconds / schedule.timed for name, seconds in stage.hooks_s.items()}
    return times, stage.profiler


class TimedTrainer(SimpleTrainer):
    """Times its hooks, and gives them names in a trace."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.hooks_s: dict[str, float] = {}

    def _compile(self) -> None:
        super()._compile()
        for moment in MOMENTS:
            self._calls[moment] = [self._timed(call, moment) for call in self._calls[moment]]

    def _timed(self, call: Callable[[], None], moment: str) -> Callable[[], None]:
        hook: Any = getattr(call, "__self__", None)
        return call if isinstance(hook, Stage) else partial(self._time, type(hook).__name__, moment, call)

    def _time(self, name: str, moment: str, call: Callable[[], None]) -> None:
        start = time.perf_counter()
        with torch.profiler.record_function(f"hook {name}.{moment}"):
            call()
        self.hooks_s[name] = self.hooks_s.get(name, 0.0) + time.perf_counter() - start

    def _forward_backward(self, batch: Any, micro: int) -> dict[str, torch.Tensor]:
        with torch.profiler.record_function("step: forward and backward"):
            return super()._forward_backward(batch, micro)


class Stage(HookBase):
    """Runs the clock and the profiler; the last hook.

    Args:
        schedule: how many steps do what.
        trace: file for the trace.
    """

    def __init__(self, schedule: Schedule, trace: Path) -> None:
        self._schedule = schedule
        self._trace = trace
        self._start = 0.0
        self.profiler: Any = None
        self.hooks_s: dict[str, float] = {}
        self.timed_s = self.profiled_s = 0.0

    def after_step(self) -> None:
        """Go from one part of the schedule to the next."""
        schedule, done = self._schedule, self.trainer.iter + 1
        begin_profiling = schedule.untimed + schedule.timed
        if self.profiler is not None and done > begin_profiling:
            self.profiler.step()
        if done == schedule.untimed:
            self._start = _now()
            self.trainer.hooks_s.clear()
        if done == begin_profiling:
            self.timed_s = _now() - self._start
            self.hooks_s = dict(self.trainer.hooks_s)
            self._begin()
        if done == begin_profiling + schedule.warmup:
            self._start = _now()
        if done == schedule.total:
            self.profiled_s = _now() - self._start

    def after_train(self) -> None:
        """Stop the profiler, also when a step failed."""
        if self.profiler is not None:
            self.profiler.stop()

    def _begin(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(
                wait=0, warmup=self._schedule.warmup, active=self._schedule.profiled, repeat=1
            ),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(self._trace)),
        )
        self.profiler.start()


def _now() -> float:
    """Read the clock when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _most_memory(device: torch.device) -> str:
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    text = f"{host:.2f} GiB of this process"
    if device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of the GPU"
    return text

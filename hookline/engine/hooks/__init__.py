"""Hooks: what happens around the steps of training."""

from hookline.engine.hook_base import HookBase
from hookline.engine.hooks.average import AverageHook, AveragesCheckpointer
from hookline.engine.hooks.callback import CallbackHook
from hookline.engine.hooks.checkpointing import BestCheckpointer, PeriodicCheckpointer
from hookline.engine.hooks.early_stopping import EarlyStopping
from hookline.engine.hooks.ema import EMAHook
from hookline.engine.hooks.evaluation import EvalHook, flatten_results
from hookline.engine.hooks.garbage import GarbageCollection
from hookline.engine.hooks.histograms import HistogramHook
from hookline.engine.hooks.lr_scheduler import LRScheduler
from hookline.engine.hooks.memory import MemoryGuard
from hookline.engine.hooks.non_finite import NonFiniteGuard
from hookline.engine.hooks.precise_bn import PreciseBN
from hookline.engine.hooks.profiling import TorchMemoryStats, TorchProfiler
from hookline.engine.hooks.resume import ResumeReport
from hookline.engine.hooks.swa import SWAHook
from hookline.engine.hooks.timing import IterationTimer
from hookline.engine.hooks.validation_loss import ValidationLossHook
from hookline.engine.hooks.watchdog import Watchdog
from hookline.engine.hooks.writing import PeriodicWriter
from hookline.engine.suspend import SuspendCheckpointer

__all__ = [
    "AverageHook",
    "AveragesCheckpointer",
    "BestCheckpointer",
    "CallbackHook",
    "EMAHook",
    "EarlyStopping",
    "EvalHook",
    "GarbageCollection",
    "HistogramHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "MemoryGuard",
    "NonFiniteGuard",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "ResumeReport",
    "SWAHook",
    "SuspendCheckpointer",
    "TorchMemoryStats",
    "TorchProfiler",
    "ValidationLossHook",
    "Watchdog",
    "flatten_results",
]

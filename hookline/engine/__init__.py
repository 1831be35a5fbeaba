"""The verbs of training: loop, hooks, events, writers, checkpoints, launch.

What a training step does not need is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hookline.engine import hooks
from hookline.engine.events import EventStorage, get_event_storage, has_event_storage
from hookline.engine.every import Every
from hookline.engine.gradients import ClipGradNorm, ClipGradValue
from hookline.engine.hook_base import HookBase, SkipStep, StopTraining
from hookline.engine.launch import launch  # at once: later, the module of the same name would stand in its place
from hookline.engine.precision import Precision, build_precision
from hookline.engine.simple_trainer import SimpleTrainer
from hookline.engine.train_loop import TrainerBase
from hookline.engine.writers import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

if TYPE_CHECKING:
    from hookline.engine.checkpoint import Checkpointer, DetectionCheckpointer
    from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError
    from hookline.engine.defaults import (
        create_ddp_model,
        default_argument_parser,
        default_device,
        default_setup,
        default_writers,
    )
    from hookline.engine.layer_decay import get_resnet_lr_decay_rate, get_vit_lr_decay_rate
    from hookline.engine.optimizer import get_default_optimizer_params, get_param_groups_by_name
    from hookline.engine.schedule import WarmupParamScheduler

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "ClipGradNorm",
    "ClipGradValue",
    "CommonMetricPrinter",
    "DetectionCheckpointer",
    "EventStorage",
    "EventWriter",
    "Every",
    "HookBase",
    "JSONWriter",
    "Precision",
    "SimpleTrainer",
    "SkipStep",
    "StopTraining",
    "TensorboardXWriter",
    "TrainerBase",
    "UnsafeCheckpointError",
    "WarmupParamScheduler",
    "build_precision",
    "create_ddp_model",
    "default_argument_parser",
    "default_device",
    "default_setup",
    "default_writers",
    "get_default_optimizer_params",
    "get_event_storage",
    "get_param_groups_by_name",
    "get_resnet_lr_decay_rate",
    "get_vit_lr_decay_rate",
    "has_event_storage",
    "hooks",
    "launch",
]

_LATER = {
    "CheckpointError": "checkpoint_errors",
    "Checkpointer": "checkpoint",
    "DetectionCheckpointer": "checkpoint",
    "UnsafeCheckpointError": "checkpoint_errors",
    "WarmupParamScheduler": "schedule",
    "create_ddp_model": "defaults",
    "default_argument_parser": "defaults",
    "default_device": "defaults",
    "default_setup": "defaults",
    "default_writers": "defaults",
    "get_default_optimizer_params": "optimizer",
    "get_param_groups_by_name": "optimizer",
    "get_resnet_lr_decay_rate": "layer_decay",
    "get_vit_lr_decay_rate": "layer_decay",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value  # also where a submodule has the same name
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

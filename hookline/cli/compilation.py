"""``train.compile``: which modules ``torch.compile`` takes, and how."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from hookline.cli.checks import check_group, expect_bool, expect_one_of, nearest
from hookline.cli.errors import UsageError
from hookline.modeling.layers.recompute import RecomputedSequential, compiled_backward_keeps_buffers

__all__ = ["check_compile", "compile_modules"]

DEFAULTS: dict[str, Any] = {
    "target": "backbone",
    "mode": None,
    "dynamic": None,
    "fullgraph": False,
    "backend": "inductor",
}
WHOLE = "model"
DEBUGGING = ("eager", "aot_eager")  # they trace and compile nothing

logger = logging.getLogger(__name__)


def check_compile(cfg: DictConfig) -> None:
    """Check ``train.compile``, but for the names of modules, which only a built model knows.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    if cfg.train.compile is None:
        return
    group = DEFAULTS | check_group("compile", cfg.train.compile, DEFAULTS)
    targets = _targets(group["target"])
    if not targets or not all(isinstance(target, str) and target for target in targets):
        raise UsageError(
            f"train.compile.target={group['target']!r}: expected 'model', the name of a module such as 'backbone', or "
            "a list of names"
        )
    if group["dynamic"] is not None:
        expect_bool("compile.dynamic", group["dynamic"])
    expect_bool("compile.fullgraph", group["fullgraph"])
    _check_backend(group["backend"], group["mode"])


def compile_modules(setting: DictConfig | None, model: nn.Module, device: str = "cpu") -> None:
    """Let the modules that ``train.compile`` names be compiled when they are first called.

    They stay the objects that they are, so names and checkpoint keys do not change.

    Args:
        setting: ``train.compile``, checked.
        model: the model, without a wrapper.
        device: where it will run, as torch names the kind: ``cpu``, ``cuda``.

    Raises:
        UsageError: if there is no such module, nothing on this machine that compiles, or a torch that would compile it
            wrongly.
    """
    if setting is None:
        return
    group = DEFAULTS | dict(setting)
    modules = {WHOLE: model, **{name: module for name, module in model.named_modules() if name and name != WHOLE}}
    for target in _targets(group["target"]):
        if target not in modules:
            parts = [WHOLE, *(name for name, _ in model.named_children())]
            hint = nearest(target, modules)
            raise UsageError(
                f"train.compile.target={target!r}: the model has no such module; "
                + (hint if hint.startswith("did") else f"expected one of {', '.join(parts)} or what they consist of")
            )
    if group["backend"] == "inductor":
        _check_compiler(device)
    for target in _targets(group["target"]):
        _check_recomputed(target, modules[target])
        options = {key: group[key] for key in ("mode", "dynamic", "fullgraph", "backend")}
        modules[target].compile(**options)
        logger.info(f"{target} is compiled when it is first called: {options}")


def _check_recomputed(target: str, module: nn.Module) -> None:
    """Refuse compiled blocks whose running statistics this torch would update twice a step.

    Raises:
        UsageError: if there is one.
    """
    blocks = [name for name, part in module.named_modules() if isinstance(part, RecomputedSequential) and _counts(part)]
    if blocks and not compiled_backward_keeps_buffers():
        raise UsageError(
            f"train.compile.target={target!r}: its {blocks[0] or 'blocks'} computes activations again (with_cp=True), "
            f"and torch {torch.__version__} would update the running statistics of batch norm a second time in a "
            "compiled backward pass: take a newer torch (2.14 does it right), with_cp=False, or train.compile=null"
        )


def _counts(module: nn.Module) -> bool:
    norms = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    return any(norm.track_running_stats for norm in norms)


def _targets(target: Any) -> list[Any]:
    return list(target) if isinstance(target, (list, ListConfig)) else [target]


def _check_backend(backend: Any, mode: Any) -> None:
    """Check both.

    Raises:
        UsageError: if one is unknown, or the mode is not for the backend.
    """
    import torch._dynamo
    import torch._inductor

    expect_one_of("compile.backend", backend, [*torch._dynamo.list_backends(), *DEBUGGING])
    if mode is None:
        return
    expect_one_of("compile.mode", mode, list(torch._inductor.list_mode_options()))
    if backend != "inductor":
        raise UsageError(
            f"train.compile.mode={mode!r} is for the backend 'inductor', not for {backend!r}; leave it out"
        )


def _check_compiler(device: str) -> None:
    """Look for what inductor calls: a C++ compiler for the CPU, and through Triton a C compiler for the GPU.

    Raises:
        UsageError: if there is none.
    """
    if device == "cpu":
        language, variable = "C++", "CXX"
        names = [{"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")]
    else:
        language, variable, names = "C", "CC", ["gcc", "clang"]
    if variable not in os.environ and not any(shutil.which(name) for name in names):
        raise UsageError(
            f"train.compile.backend='inductor' needs a {language} compiler on {device}, and there is no "
            f"{' or '.join(names)} on the PATH: install it, or name another one in the environment variable {variable}"
        )

"""``train.loggers``: who writes down what a run measures, and what else is measured for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hookline.cli.checkpointing import checkpoint_folder
from hookline.cli.checks import check_group, expect_bool, expect_int, expect_number
from hookline.cli.errors import UsageError
from hookline.cli.pictures import PredictionLogger
from hookline.config import LazyConfig, instantiate
from hookline.distributed import is_main_process
from hookline.engine import CommonMetricPrinter, EventWriter, HookBase, JSONWriter, TensorboardXWriter
from hookline.engine.hooks import HistogramHook, PeriodicWriter
from hookline.engine.writers_remote import CHECKPOINT_CHOICES

if TYPE_CHECKING:
    from hookline.cli.run_hooks import RunParts

__all__ = [
    "build_histograms",
    "build_prediction_logger",
    "build_writer_hook",
    "build_writers",
    "check_loggers",
    "flat_recipe",
    "require_packages",
]

# What may stand in a logger's own group of settings.
KEYS: dict[str, tuple[str, ...]] = {
    "tensorboard": ("hparams",),
    "wandb": (
        *("project", "entity", "name", "group", "job_type", "tags", "notes", "mode"),
        *("run_id", "log_checkpoints", "settings"),
    ),
    "mlflow": (
        *("tracking_uri", "experiment", "run_name", "tags", "artifact_location"),
        *("run_id", "log_checkpoints"),
    ),
    "pictures": ("count", "threshold"),
    "histograms": ("period", "parameters", "gradients", "bins"),
}
SWITCHES = ("console", "json")
WANDB_INIT = ("name", "group", "job_type", "tags", "notes")
PACKAGES = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def check_loggers(cfg: DictConfig) -> None:
    """Check the settings of the loggers.

    Args:
        cfg: the recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    loggers = cfg.train.loggers
    if not isinstance(loggers, DictConfig):
        raise UsageError(f"train.loggers={loggers!r}: expected a dict; see docs/loggers.md")
    for key in SWITCHES:
        expect_bool(f"loggers.{key}", loggers[key])
    for key, known in KEYS.items():
        if not isinstance(loggers[key], bool | None):
            check_group(f"loggers.{key}", loggers[key], known)
    expect_number("loggers.timeout_s", loggers.timeout_s, 0)
    for key in ("wandb", "mlflow"):
        _check_service(key, _group(loggers, key) or {})
    _check_measured(loggers)
    others = loggers.others or []
    if not isinstance(others, list | ListConfig) or not all(map(_is_call, others)):
        raise UsageError(f"train.loggers.others={others!r}: expected a list of recorded calls, such as [L(MyWriter)()]")


def _is_call(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _check_service(key: str, group: Mapping[str, Any]) -> None:
    asked = group.get("log_checkpoints", False)
    if asked is not False and asked not in CHECKPOINT_CHOICES:
        choices = ", ".join(map(repr, CHECKPOINT_CHOICES))
        raise UsageError(f"train.loggers.{key}.log_checkpoints={asked!r}: expected {choices} or false")
    mode = group.get("mode")
    if mode not in (None, "online", "offline"):
        raise UsageError(f"train.loggers.{key}.mode={mode!r}: expected 'online' or 'offline'; null is no W&B")


def _check_measured(loggers: DictConfig) -> None:
    histograms, pictures = _group(loggers, "histograms"), _group(loggers, "pictures")
    if histograms is not None:
        if "period" not in histograms:
            raise UsageError("train.loggers.histograms.period is missing: iterations between two times, such as 1000")
        expect_int("loggers.histograms.period", histograms["period"], 1)
        expect_int("loggers.histograms.bins", histograms.get("bins", 100), 1)
        for key in ("parameters", "gradients"):
            expect_bool(f"loggers.histograms.{key}", histograms.get(key, True))
    if pictures is not None:
        expect_int("loggers.pictures.count", pictures.get("count", 8), 1)
        expect_number("loggers.pictures.threshold", pictures.get("threshold", 0.5), 0)
    expect_bool("loggers.tensorboard.hparams", (_group(loggers, "tensorboard") or {}).get("hparams", True))


def require_packages(cfg: DictConfig) -> None:
    """Refuse a logger whose package is not there.

    Args:
        cfg: the recipe.

    Raises:
        UsageError: naming the setting and how to install the package.
    """
    for key, packages in PACKAGES.items():
        group = _group(cfg.train.loggers, key)
        if group is None:
            continue
        if key == "mlflow" and str(group.get("tracking_uri") or "").startswith(("http", "databricks")):
            packages = packages[:1]  # a database is the server's affair
        for package in packages:
            if not _is_installed(package):
                raise UsageError(
                    f"train.loggers.{key}: the package {package} is not installed; "
                    f"pip install 'hookline[{key}]', or set train.loggers.{key}=null"
                )


def build_writer_hook(parts: RunParts) -> PeriodicWriter:
    """Make the hook that writes: every rank has it, the main one with writers.

    Args:
        parts: what the run was built of.
    """
    writers = build_writers(parts) if is_main_process() else []
    return PeriodicWriter(writers, period=parts.cfg.train.log_period)


def build_writers(parts: RunParts) -> list[EventWriter]:
    """Make the writers that ``train.loggers`` asks for.

    Args:
        parts: what the run was built of.
    """
    loggers, folder = parts.cfg.train.loggers, str(parts.cfg.train.output_dir)
    writers: list[EventWriter] = []
    if loggers.console:
        writers.append(CommonMetricPrinter(parts.max_iter))
    if loggers.json:  # before the services, which read the file
        writers.append(JSONWriter(str(Path(folder) / "metrics.json"), continued=parts.resume))
    if (board := _group(loggers, "tensorboard")) is not None:
        hparams = flat_recipe(parts.cfg) if board.get("hparams", True) else None
        writers.append(TensorboardXWriter(folder, hparams=hparams, continued=parts.resume))
    writers.extend(_services(parts, loggers, folder))
    writers.extend(instantiate(node) for node in loggers.others or [])
    return writers


def _services(parts: RunParts, loggers: DictConfig, folder: str) -> list[EventWriter]:
    common: dict[str, Any] = {
        "continued": parts.resume,
        "checkpoint_dir": checkpoint_folder(parts.cfg.train),
        "timeout_s": float(loggers.timeout_s),
    }
    writers: list[EventWriter] = []
    if (group := _group(loggers, "wandb")) is not None:
        from hookline.engine.writers_wandb import WandbWriter

        init = {key: group.pop(key) for key in WANDB_INIT if key in group}
        writers.append(WandbWriter(folder, config=flat_recipe(parts.cfg), init=init, **group, **common))
    if (group := _group(loggers, "mlflow")) is not None:
        from hookline.engine.writers_mlflow import MLflowWriter

        writers.append(MLflowWriter(folder, config=flat_recipe(parts.cfg), **group, **common))
    return writers


def build_histograms(settings: DictConfig) -> HookBase | None:
    """Make the hook that records histograms, if ``train.loggers.histograms`` asks for it.

    Args:
        settings: ``train.loggers``.
    """
    group = _group(settings, "histograms")
    return None if group is None else HistogramHook(**group)


def build_prediction_logger(cfg: DictConfig, name: str, loader_node: DictConfig) -> PredictionLogger | None:
    """Make what draws predictions for the writers, if ``train.loggers.pictures`` asks for it.

    Args:
        cfg: the recipe.
        name: that of the evaluation; empty where there is only one.
        loader_node: the recorded call of its loader.
    """
    loggers = cfg.train.get("loggers")
    group = None if loggers is None else _group(loggers, "pictures")
    return None if group is None else PredictionLogger(name, loader_node, **group)


def flat_recipe(cfg: DictConfig) -> dict[str, Any]:
    """Give every setting of a recipe by its path.

    Args:
        cfg: the recipe.

    Returns:
        Numbers, truth values and texts; what is something else as its text.
    """
    plain = OmegaConf.create(LazyConfig.to_yaml(cfg))
    assert isinstance(plain, DictConfig)
    flat: dict[str, Any] = {}
    _flatten(plain, "", flat)
    return flat


def _flatten(node: DictConfig | ListConfig, prefix: str, flat: dict[str, Any]) -> None:
    unresolved: Any = OmegaConf.to_container(node, resolve=False)
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        path = f"{prefix}.{key}" if prefix else str(key)
        try:
            value = node[key]
        except OmegaConfBaseException:  # an interpolation of something that is not here
            value = unresolved[key]
        if isinstance(value, DictConfig | ListConfig) and not _is_plain(value):
            _flatten(value, path, flat)
        else:
            flat[path] = value if isinstance(value, bool | int | float | str) else str(value)


def _is_plain(node: DictConfig | ListConfig) -> bool:
    """Tell whether a node has no further nodes in it that are worth a path of their own."""
    if isinstance(node, DictConfig):
        return not node
    return not any(isinstance(each, DictConfig | ListConfig) for each in node)


def _group(loggers: DictConfig, key: str) -> dict[str, Any] | None:
    """Give a logger's settings as plain values; True stands for the defaults, False and null for none."""
    node = loggers[key]
    if isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]
    return {} if node else None


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of that name, such as W&B's own, is none

"""The front door: load, change, save and print configs."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hookline.config import code, overrides, saving
from hookline.config.errors import ConfigError, did_you_mean
from hookline.config.loader import load_python
from hookline.config.nodes import read
from hookline.config.origin import get_sources


class LazyConfig:
    """Load, change and save configs of recorded calls."""

    @staticmethod
    def load(path: str | os.PathLike[str], keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a recipe (``.py``) or a saved config (``.yaml``, ``.yml``).

        Args:
            path: The file.
            keys: A name, or several, to give instead of the whole config. A node given alone remains part of its
                config, so that its interpolations resolve.

        Returns:
            The config with every top-level node, or the value of ``keys``, or a tuple of those values.

        Raises:
            ConfigError: If the file does not exist, fails, or lacks a key.
        """
        path = Path(path)
        if path.suffix not in (".py", ".yaml", ".yml"):
            raise ConfigError(f"{path}: a recipe ends in .py and a saved config in .yaml")
        if not path.is_file():
            siblings = [f.name for f in path.parent.glob("*") if f.suffix in (".py", ".yaml", ".yml")]
            raise ConfigError(f"there is no file {path}{did_you_mean(path.name, siblings)}")
        namespace: dict[str, Any] = {}
        if path.suffix == ".py":
            config, namespace = load_python(path)
        else:
            config = saving.load_yaml(path)
        if keys is None:
            return config
        if isinstance(keys, str):
            return _pick(config, namespace, keys, path)
        return tuple(_pick(config, namespace, key, path) for key in keys)

    @staticmethod
    def load_rel(path: str | os.PathLike[str], keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a file whose path is meant from the file that calls this.

        Args:
            path: The file, relative to the caller's folder.
            keys: As in ``load``.

        Returns:
            As ``load``.

        Raises:
            ConfigError: As ``load``, or if the caller is no file.
        """
        caller = Path(sys._getframe(1).f_code.co_filename)
        if not caller.is_file():
            raise ConfigError(f"load_rel({str(path)!r}) is called from {caller}, which is no file; use load")
        return LazyConfig.load(caller.resolve().parent / path, keys)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides_: Sequence[str]) -> DictConfig:
        """Apply ``key=value`` texts in Hydra's grammar; see ``hookline.config.overrides``.

        Args:
            cfg: The config, which is changed.
            overrides_: The texts: ``key=value``, ``+new.key=value``, ``++key=value``, ``~key``.

        Returns:
            The same config.
        """
        return overrides.apply_overrides(cfg, overrides_)

    @staticmethod
    def save(cfg: DictConfig, path: str | os.PathLike[str]) -> None:
        """Save a config as YAML that ``load`` reads again and that builds the same.

        Args:
            cfg: The config.
            path: The file to write.
        """
        saving.save(cfg, path)

    @staticmethod
    def to_yaml(cfg: DictConfig) -> str:
        """Write a config as the text that ``save`` would save.

        Args:
            cfg: The config.

        Returns:
            YAML.
        """
        return saving.to_yaml(cfg)

    @staticmethod
    def to_py(cfg: DictConfig) -> str:
        """Write a config as the source of a recipe that loads.

        Args:
            cfg: The config.

        Returns:
            Python source.
        """
        return code.to_py(cfg)

    @staticmethod
    def sources(cfg: DictConfig) -> tuple[str, ...]:
        """Tell which files a loaded config came from.

        Args:
            cfg: The whole config, as ``load`` gave it.

        Returns:
            Absolute paths: the file that was asked for, then those it imports.
        """
        return get_sources(cfg)


def _pick(config: DictConfig, namespace: dict[str, Any], key: str, path: Path) -> Any:
    """Give one top-level value: a node of the config, or anything else that the recipe defines.

    Raises:
        ConfigError: If there is none of that name.
    """
    if key in config:
        return read(config, key)
    if key in namespace:
        return namespace[key]
    raise ConfigError(f"{path} has no {key!r}{did_you_mean(key, config.keys(), kind='it has')}")

"""Save a config as YAML without tags, and read it again."""

import os
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hookline.config.errors import ConfigError
from hookline.config.lazy import FLAGS
from hookline.config.origin import set_origin, set_sources
from hookline.config.plain import to_plain


def to_yaml(cfg: DictConfig) -> str:
    """Write a config as YAML text that ``LazyConfig.load`` reads again.

    Args:
        cfg: The config.

    Returns:
        The text, with keys in the config's order.
    """
    return yaml.dump(
        to_plain(cfg), Dumper=_Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True, width=110
    )


class _Dumper(yaml.SafeDumper):
    """Writes texts so that OmegaConf reads texts again."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Write a text, escaped where PyYAML would fold line ends that are none to it."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
# OmegaConf reads 1e-3 as a number, as YAML 1.2 does; knowing that, the dumper quotes a text that looks so.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\.?(\d[\d_.eE:+-]*|inf|nan)$", re.IGNORECASE),
    list("-+.0123456789iInN"),
)


def save(cfg: DictConfig, path: str | os.PathLike[str]) -> None:
    """Save a config as a YAML file that loads again; an earlier file is replaced whole or not at all.

    Args:
        cfg: The config.
        path: The file; folders on the way to it are made.
    """
    text = to_yaml(cfg)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, "utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_yaml(path: Path) -> DictConfig:
    """Read a saved config. Nothing is imported, and YAML tags that would make objects are refused.

    Args:
        path: The file.

    Returns:
        The config; its nodes know their lines in the file.

    Raises:
        ConfigError: If the file cannot be read or is no YAML dictionary.
    """
    try:
        text = path.read_text("utf-8")
        config = OmegaConf.create(text, flags=FLAGS) if text.strip() else None
        tree = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}: this is no saved config: {reason}") from error
    if not isinstance(config, DictConfig) or not isinstance(tree, yaml.MappingNode):
        raise ConfigError(f"{path}: this is no saved config: it holds no dictionary")
    _note_lines(config, tree, path.resolve())
    set_sources(config, (str(path.resolve()),))
    return config


def _note_lines(node: Any, tree: yaml.Node, path: Path) -> None:
    """Note at every node in which line of the file it stands."""
    set_origin(node, f"{path}:{tree.start_mark.line + 1}")
    if isinstance(tree, yaml.MappingNode) and isinstance(node, DictConfig):
        for key, below in tree.value:
            child: Any = node._get_node(key.value) if key.value in node.keys() else None  # noqa: SIM118
            if isinstance(child, DictConfig | ListConfig):
                _note_lines(child, below, path)
    elif isinstance(tree, yaml.SequenceNode) and isinstance(node, ListConfig):
        for index, below in enumerate(tree.value):
            child = node._get_node(index)
            if isinstance(child, DictConfig | ListConfig):
                _note_lines(child, below, path)

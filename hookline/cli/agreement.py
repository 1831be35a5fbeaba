"""Ranks that run different recipes or versions are found before the first step, not by a hanging collective."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import hookline
from hookline.cli.errors import UsageError
from hookline.config import LazyConfig
from hookline.distributed import all_gather, get_rank, get_world_size

__all__ = ["check_same_on_all_ranks"]

_SHOWN_KEYS = 8


def check_same_on_all_ranks(cfg: DictConfig) -> None:
    """Compare the recipe, Hookline's and torch's version over all ranks; every rank calls it.

    Args:
        cfg: the whole recipe of this rank.

    Raises:
        UsageError: on every rank, if they differ; names two ranks, their hashes and what differs.
    """
    if get_world_size() == 1:
        return
    digest = hashlib.sha256(f"{_versions()}\n{LazyConfig.to_yaml(cfg)}".encode()).hexdigest()[:12]
    digests = all_gather(digest)
    other = next((rank for rank, found in enumerate(digests) if found != digests[0]), None)
    if other is None:
        return
    # only now, since recipes may be large
    first, second = (_Settings(each) for each in _of_two(_versions() | _flat(cfg), other))
    names = [name for name in {**first, **second} if first[name] != second[name]]
    lines = [f"  {name}: {first[name]} on rank 0, {second[name]} on rank {other}" for name in names[:_SHOWN_KEYS]]
    if len(names) > _SHOWN_KEYS:
        lines.append(f"  and {len(names) - _SHOWN_KEYS} more")
    head = f"rank 0 runs recipe {digests[0]}, rank {other} runs recipe {digests[other]}; all ranks need the same one:"
    raise UsageError("\n".join([head, *lines]))


class _Settings(dict[str, Any]):
    """Settings by their dotted names; what is not there says so."""

    def __missing__(self, name: str) -> str:
        return "(not set)"


def _versions() -> dict[str, str]:
    return {"version of hookline": hookline.__version__, "version of torch": torch.__version__}


def _of_two(settings: Mapping[str, Any], other: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give every rank the settings of rank 0 and of another one."""
    found = all_gather(dict(settings) if get_rank() in {0, other} else {})
    return found[0], found[other]


def _flat(cfg: DictConfig) -> dict[str, str]:
    return dict(_leaves(OmegaConf.to_container(OmegaConf.create(LazyConfig.to_yaml(cfg)), resolve=False), ""))


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict | list) and node:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, repr(node)

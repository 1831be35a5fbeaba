"""Fit a state dict to a model and say what fitted."""

import logging
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

__all__ = ["MatchReport", "compare", "load_model_state", "match_by_suffix", "unwrap_model", "without_wrapper_prefix"]

_logger = logging.getLogger(__name__)
_ROWS = 40


@dataclass
class MatchReport:
    """What a state dict and a model have in common.

    Attributes:
        matched: Names whose values were taken from the file.
        missing: Names that the model has and the file lacks; they keep the values they had.
        unexpected: Names that the file has and the model lacks; they are not used.
        other_shape: Name to (shape in the file, shape in the model); they keep the values they had.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Tell whether the file has the model's names and shapes, no more and no less."""
        return not (self.missing or self.unexpected or self.other_shape)

    def summary(self) -> str:
        """Count in one line."""
        return (
            f"{len(self.matched)} matched, {len(self.missing)} missing in the file, {len(self.unexpected)} unexpected "
            f"in the file, {len(self.other_shape)} of another shape"
        )

    def table(self) -> str:
        """List what did not match, names of one module in one row."""
        from tabulate import tabulate

        rows = [
            ("other shape", name, f"{list(in_file)} in the file, {list(in_model)} in the model")
            for name, (in_file, in_model) in self.other_shape.items()
        ]
        rows += [("missing", name, "keeps its initial value") for name in _grouped(self.missing)]
        rows += [("unexpected", name, "not used") for name in _grouped(self.unexpected)]
        text = tabulate(rows[:_ROWS], headers=("", "name", ""), tablefmt="simple")
        return text + (f"\n... and {len(rows) - _ROWS} more" if len(rows) > _ROWS else "")

    def __str__(self) -> str:
        return self.summary() if self.is_exact else f"{self.summary()}\n{self.table()}"


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, DataParallel and torch.compile's wrapper."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def without_wrapper_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy a state dict without the prefixes that wrappers put before every name."""
    result = _copy(state)
    for prefix in ("module.", "_orig_mod.", "module."):
        if result and all(name.startswith(prefix) for name in result):
            consume_prefix_in_state_dict_if_present(result, prefix)
    return result


def match_by_suffix(state: Mapping[str, torch.Tensor], model_names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Rename the entries of a part's state dict to the names that end with theirs in the whole model.

    So `stem.conv1.weight` of a backbone's file becomes `backbone.bottom_up.stem.conv1.weight`. Where several entries
    fit a name, the longest does; an entry that fits several names is not used, since nothing tells which.

    Args:
        state: Entries of the file.
        model_names: Names in the model.

    Returns:
        The entries under the model's names; those that fit none keep their own.
    """
    claims = {name: entry for name in model_names if (entry := _longest_suffix(name, state)) is not None}
    counts = Counter(claims.values())
    for entry, count in counts.items():
        if count > 1:
            names = ", ".join(name for name, claimed in claims.items() if claimed == entry)
            _logger.warning("%s in the file fits several names and is not used: %s", entry, names)
    renamed = {name: state[entry] for name, entry in claims.items() if counts[entry] == 1}
    return {**renamed, **{entry: value for entry, value in state.items() if entry not in counts}}


def compare(model: nn.Module, state: Mapping[str, torch.Tensor]) -> MatchReport:
    """Compare a state dict with a model by name and shape, changing nothing."""
    report = MatchReport()
    own = model.state_dict()
    for name, value in own.items():
        if name not in state:
            report.missing.append(name)
        elif isinstance(value, torch.Tensor) and value.shape != state[name].shape:
            report.other_shape[name] = (tuple(state[name].shape), tuple(value.shape))
        else:
            report.matched.append(name)
    report.unexpected = [name for name in state if name not in own]
    return report


def load_model_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> MatchReport:
    """Copy what fits into the model.

    Names that a module translates by itself while loading count as matched.

    Args:
        model: The model, without wrappers.
        state: Tensors by name.

    Returns:
        What matched and what did not.
    """
    report = compare(model, state)
    fitting = _copy(state)
    for name in report.other_shape:
        del fitting[name]
    outcome = model.load_state_dict(fitting, strict=False)
    if set(report.unexpected) - set(outcome.unexpected_keys):  # a module took what is not under its present names
        translated = set(report.missing) - set(outcome.missing_keys)
        report.matched += sorted(translated)
        report.missing = [name for name in report.missing if name not in translated]
        report.unexpected = [name for name in report.unexpected if name in outcome.unexpected_keys]
    return report


def _copy(state: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """A shallow copy that keeps the versions of the layers, which a state dict carries in an attribute."""
    result = OrderedDict(state)
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        result._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return result


def _longest_suffix(name: str, entries: Mapping[str, torch.Tensor]) -> str | None:
    """The longest entry that is the name or its end after a dot."""
    rest = name
    while True:
        if rest in entries:
            return rest
        _, dot, rest = rest.partition(".")
        if not dot:
            return None


def _grouped(names: Iterable[str]) -> list[str]:
    """Join the names of one module: `fc.weight`, `fc.bias` become `fc.{weight, bias}`."""
    leaves: dict[str, list[str]] = defaultdict(list)
    for name in names:
        module, _, leaf = name.rpartition(".")
        leaves[module].append(leaf)
    return [
        f"{module}{'.' if module else ''}{found[0] if len(found) == 1 else '{' + ', '.join(found) + '}'}"
        for module, found in leaves.items()
    ]

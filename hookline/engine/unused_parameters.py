"""Parameters that the losses do not depend on, found before the backward pass of a fully sharded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hookline.engine.fully_sharded import is_fully_sharded

__all__ = ["GraphCheck"]


class GraphCheck:
    """Looks, after each forward pass in training, which parameters the outputs depend on.

    Ranks that reduce gradients of different parameters end with a crash or a hang, so after backward it is too late.
    Parameters are gathered into the same objects each time, whose names are learnt when their unit runs first.

    Args:
        model: fully sharded, by ``create_fully_sharded_model``.
        report: called with the names of those that the outputs do not depend on; shall raise.
    """

    def __init__(self, model: Any, report: Callable[[list[str]], None]) -> None:
        self._trainable: set[str] = set(model.trainable_names)
        self._report = report
        self._names: dict[int, str] = {}
        self._known: set[nn.Module] = set()
        units = [(name, module) for name, module in model.named_modules() if is_fully_sharded(module)]
        # the last ones, so that the parameters are gathered when they are looked at
        self._handles = [unit.register_forward_pre_hook(self._learner(name)) for name, unit in units]
        self._handles.append(model.register_forward_hook(self._look))

    def remove(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()

    def _learner(self, prefix: str) -> Callable[..., None]:
        def learn(unit: nn.Module, *unused: Any) -> None:
            if unit in self._known:
                return
            self._known.add(unit)
            for name, parameter in unit.named_parameters(prefix=prefix):
                self._names.setdefault(id(parameter), name)

        return learn

    def _look(self, model: nn.Module, inputs: Any, outputs: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        used = {self._names.get(id(leaf)) for leaf in _leaves(outputs)}
        if missing := sorted(self._trainable - used):
            self._report(missing)


def _leaves(outputs: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that gradients of the outputs accumulate in."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    todo = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)

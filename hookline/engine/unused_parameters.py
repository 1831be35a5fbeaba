"""Parameters that the losses do not depend on, found before the backward pass of a fully sharded model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hookline.engine.fully_sharded import is_fully_sharded

__all__ = ["GraphCheck"]

# the node of torch.utils.checkpoint with use_reentrant=True: what it ran is recorded when it runs again, in backward
_HIDING = "CheckpointFunctionBackward"
_BLIND = (
    "Parameters without a gradient are not looked for: the model has reentrant activation checkpoints, which hide what "
    "they run. Where ranks differ in such parameters, they will hang or crash. With use_reentrant=False, as in "
    "torch.utils.checkpoint.checkpoint(..., use_reentrant=False), they are found and named"
)

logger = logging.getLogger(__name__)


class GraphCheck:
    """Looks, after each forward pass in training, which parameters the outputs depend on.

    Ranks that reduce gradients of different parameters end with a crash or a hang, so after backward it is too late.
    Parameters are gathered into the same objects each time, whose names are learnt when their unit runs first.
    Reentrant activation checkpoints hide what is inside of them; a model with such ones is not looked at any more.

    Args:
        model: fully sharded, by ``create_fully_sharded_model``.
        report: called with the names of those that the outputs do not depend on; shall raise.
    """

    def __init__(self, model: Any, report: Callable[[list[str]], None]) -> None:
        self._trainable: set[str] = set(model.trainable_names)
        self._report = report
        self._names: dict[int, str] = {}
        self._known: set[nn.Module] = set()
        self._is_blind = False
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
        if self._is_blind or not (model.training and torch.is_grad_enabled()):
            return
        used = {self._names.get(id(leaf)) for leaf in _leaves(outputs)}
        if not (missing := sorted(self._trainable - used)):
            return
        if any(node.name() == _HIDING for node in _nodes(outputs)):
            self._is_blind = True
            logger.warning(_BLIND)
        else:
            self._report(missing)


def _leaves(outputs: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that gradients of the outputs accumulate in."""
    for node in _nodes(outputs):
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable


def _nodes(outputs: Any) -> Iterator[Any]:
    """Yield the nodes of the graph that backward goes through."""
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    todo = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)

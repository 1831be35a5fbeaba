"""A model whose ranks must all run it equally often, over data of which they have unequal numbers of batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hookline.distributed import all_gather, broadcast
from hookline.engine.fully_sharded import is_fully_sharded, reshard

__all__ = ["Lockstep"]


class Lockstep(nn.Module):
    """Stands for a model and, if it is fully sharded, calls it together with all other ranks.

    A rank that has no more batches must still help to gather the parameters for the others: :meth:`finish` runs the
    model on its last batch again, or on one of another rank's, until all have finished, and drops what comes out.

    A model whose parameters are gathered in bfloat16 runs under autocast, as in training.

    Args:
        model: any; one that is not fully sharded needs no other rank and is called as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._needs_all = is_fully_sharded(model)
        self._batch: Any = None

    def forward(self, batch: Any) -> Any:
        """Run the model on a batch."""
        if self._needs_all:
            self._batch = batch
            self._agree(working=True)
        return self._run(batch)

    def finish(self) -> None:
        """Run along until every rank has come here; to be called on each, behind its last batch."""
        while self._needs_all and self._agree(working=False):
            self._run(self._batch)
        self._batch = None
        reshard(self.model)

    def _run(self, batch: Any) -> Any:
        device_type, dtype = getattr(self.model, "gathers_in", ("cpu", None))
        if dtype is None:
            return self.model(batch)
        with torch.autocast(device_type, dtype):
            return self.model(batch)

    def _agree(self, working: bool) -> bool:
        """Tell whether any rank works; ranks without a batch to stand in get one."""
        ranks = all_gather((working, self._batch is None), patient=True)
        source = next((rank for rank, (works, _) in enumerate(ranks) if works), None)
        if source is None:
            return False
        if any(lacks for _, lacks in ranks):
            batch = broadcast(self._batch, source)
            self._batch = batch if self._batch is None else self._batch
        return True

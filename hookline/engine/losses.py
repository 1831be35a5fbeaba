"""The losses of each step, from the device to the storage: later, together, averaged over ranks, and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from hookline.distributed import broadcast, gather, get_rank, get_world_size
from hookline.engine.events import EventStorage

__all__ = ["LossLedger", "LossRecord", "NonFiniteError", "as_losses", "peak_memory", "sum_losses"]


class NonFiniteError(FloatingPointError):
    """A loss or a gradient is infinite or not a number.

    Args:
        message: says where and of what.
        iteration: the first such step, the same on all ranks that raise this together.
        of_all_ranks: whether all ranks raise it together, so that one of them shows it.
    """

    def __init__(self, message: str, iteration: int, of_all_ranks: bool = False) -> None:
        super().__init__(message)
        self.iteration = iteration
        self.of_all_ranks = of_all_ranks

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[str, int, bool]]:
        return type(self), (str(self), self.iteration, self.of_all_ranks)  # it is sent between processes

    def with_line(self, text: str) -> NonFiniteError:
        """Return this error, without its frames, and with one more line.

        Args:
            text: the line.
        """
        return NonFiniteError(f"{self}\n  {text}", self.iteration, self.of_all_ranks)


@dataclass(slots=True)
class LossRecord:
    """What one step measured on this rank.

    Attributes:
        iteration: the step.
        names: the loss each tensor belongs to; with accumulation a name occurs once for each batch.
        tensors: the scalars, until their values are read.
        batches: how many batches the step accumulated.
        data_time: seconds that the step waited for data.
        files: the step's ``file_name`` values.
        prefix: put before the names of what is recorded.
        losses: mean over the batches by name, once the values are read.
    """

    iteration: int
    names: list[str]
    tensors: list[torch.Tensor]
    batches: int
    data_time: float
    files: list[str]
    prefix: str
    losses: dict[str, float] = field(default_factory=dict)

    def settle(self, values: Iterator[float]) -> None:
        """Take the values of the tensors, and let go of those."""
        measured = islice(values, len(self.names))
        if self.batches == 1:
            self.losses = dict(zip(self.names, measured, strict=True))
        else:
            for name, value in zip(self.names, measured, strict=True):
                self.losses[name] = self.losses.get(name, 0.0) + value / self.batches
        self.tensors = []

    @property
    def finite(self) -> bool:
        """Whether every loss is a finite number."""
        return math.isfinite(sum(self.losses.values()))


class LossLedger:
    """Keeps the losses of the newest steps as tensors until they are read, and checks them.

    Reading the storage shows this rank's values at once; :meth:`gather`, which all ranks call at the same iterations,
    puts the mean over the ranks in their place.
    """

    def __init__(self) -> None:
        self._records: list[LossRecord] = []

    def add(
        self,
        iteration: int,
        micro_losses: Sequence[Mapping[str, torch.Tensor]],
        data_time: float,
        files: list[str] | None = None,
        prefix: str = "",
    ) -> None:
        """Note the losses of one step; nothing is read from the device.

        Args:
            iteration: the step.
            micro_losses: the losses, scalars by name, of each accumulated batch.
            data_time: seconds that the step waited for data.
            files: names of the files in the batches.
            prefix: put before the names.
        """
        names = [name for losses in micro_losses for name in losses]
        tensors = [_kept(loss) for losses in micro_losses for loss in losses.values()]
        self._records.append(LossRecord(iteration, names, tensors, len(micro_losses), data_time, files or [], prefix))

    def waiting(self) -> list[torch.Tensor]:
        """Return the loss tensors that are not read yet, oldest first."""
        return [tensor for record in self._records for tensor in record.tensors]

    def deliver(self, values: Iterator[float], storage: EventStorage) -> None:
        """Take the values of :meth:`waiting` and put this rank's losses into the storage.

        Args:
            values: one for each tensor.
            storage: where the losses go.
        """
        for record in self._records:
            if record.tensors:
                record.settle(values)
                total = sum(record.losses.values())
                _publish(storage, record, record.losses, total, record.data_time)

    def check(self) -> None:
        """Check all losses read so far on this rank; what waits for :meth:`gather` is kept.

        Raises:
            NonFiniteError: if one is not finite; names the iteration, the losses and the files.
        """
        _raise_for({get_rank(): self._records}, of_all_ranks=False)
        if get_world_size() == 1:
            self._records.clear()

    def gather(self, storage: EventStorage) -> None:
        """Put the mean over all ranks of every loss into the storage; all ranks must call this at the same iteration.

        A loss that only some ranks have is averaged over those. The time for data is that of the slowest rank, and
        ``max_mem`` the GPU memory, in MiB, of the rank that needed most.

        Args:
            storage: where the losses go; must have been flushed.

        Raises:
            NonFiniteError: on every rank if a loss of any rank is not finite; names what :meth:`check` names.
        """
        records, self._records = self._records, []
        if get_world_size() > 1:
            means, peak = _agree(records)
            for record, mean in zip(records, means, strict=True):
                _publish(storage, record, *mean)
        else:
            _raise_for({0: records}, of_all_ranks=True)
            peak = peak_memory()
        if peak:
            storage.put_scalar("max_mem", peak, smoothing_hint=False)


def peak_memory() -> float:
    """Return the most memory that torch had on this rank's GPU, in MiB; 0 where none was used."""
    # asking whether there is a GPU would cost more than all the rest
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0


def as_losses(output: Any) -> dict[str, torch.Tensor]:
    """Read what a model returned in training.

    Args:
        output: a dict of scalar losses by name, or one scalar tensor, which then is ``total_loss``.

    Returns:
        Scalar tensors by name.

    Raises:
        TypeError: if it is something else; says what.
        ValueError: if there is no loss, or one is no scalar.
    """
    if isinstance(output, torch.Tensor):
        output = {"total_loss": output}
    if not isinstance(output, (dict, Mapping)):
        raise TypeError(
            "in training a model must return a dict of scalar losses (or one scalar tensor), "
            f"but it returned {type(output).__name__}"
        )
    if not output:
        raise ValueError("the model returned an empty dict: there is no loss to minimise")
    for name, loss in output.items():
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"loss {name!r} must be a scalar tensor, but the model returned {type(loss).__name__}")
        if loss.dim() and loss.numel() != 1:
            raise ValueError(f"loss {name!r} must be a scalar tensor, but its shape is {tuple(loss.shape)}")
    return dict(output)


def sum_losses(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Add up all losses.

    Args:
        losses: scalars by name, at least one.

    Returns:
        Scalar tensor.
    """
    total: torch.Tensor | None = None
    for loss in losses.values():
        total = loss if total is None else total + loss
    assert total is not None
    return total if total.dim() == 0 else total.reshape(())


def _kept(loss: torch.Tensor) -> torch.Tensor:
    """Cut a loss from its graph; one that shares memory with something that may change is copied."""
    kept = loss.detach() if loss.dim() == 0 else loss.detach().reshape(())
    return kept.clone() if loss.is_leaf or loss._is_view() else kept


def _publish(
    storage: EventStorage, record: LossRecord, losses: Mapping[str, float], total: float, data_time: float
) -> None:
    scalars = {"data_time": data_time, "total_loss": total}
    if len(losses) > 1:  # a single loss is the total
        scalars.update(losses)
    if record.prefix:
        scalars = {name if name == "data_time" else record.prefix + name: value for name, value in scalars.items()}
    storage.record(record.iteration, scalars)


def _agree(records: list[LossRecord]) -> tuple[list[tuple[dict[str, float], float, float]], float]:
    """Let rank 0 judge and average the steps of all ranks, so that not every rank has to read those of all others.

    Returns:
        What :func:`_mean` gives for each step, and the largest peak of memory.

    Raises:
        NonFiniteError: on every rank, if a loss of any rank is not finite.
    """
    for record in records:
        if record.finite:
            record.files = []  # no need to send them
    parts: list[tuple[list[LossRecord], float]] = gather((records, peak_memory()), patient=False)
    found: Any = None
    if get_rank() == 0:
        try:
            _raise_for(dict(enumerate(part for part, _ in parts)), of_all_ranks=True)
            means = [_mean(same_step) for same_step in zip(*(part for part, _ in parts), strict=True)]
            found = means, max(memory for _, memory in parts)
        except Exception as error:  # the others must raise it, too
            found = error
    found = broadcast(found, patient=False)
    if isinstance(found, Exception):
        raise found
    return found


def _mean(records: Sequence[LossRecord]) -> tuple[dict[str, float], float, float]:
    """Average one step over ranks: losses by name, total loss, and the longest wait for data."""
    by_name: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.losses.items():
            by_name.setdefault(name, []).append(value)
    losses = {name: math.fsum(values) / len(values) for name, values in by_name.items()}
    total = math.fsum(sum(record.losses.values()) for record in records) / len(records)
    return losses, total, max(record.data_time for record in records)


def _raise_for(ranks: Mapping[int, Sequence[LossRecord]], *, of_all_ranks: bool) -> None:
    """Report the earliest step whose losses are not finite, with every rank that has such ones in it.

    Raises:
        NonFiniteError: if there is such a step.
    """
    bad = [
        (record.iteration, rank, record) for rank, records in ranks.items() for record in records if not record.finite
    ]
    if not bad:
        return
    iteration = min(bad, key=lambda found: found[:2])[0]
    lines = [f"loss is not finite at iteration {iteration}"]
    for step, rank, record in sorted(bad, key=lambda found: found[:2]):
        if step == iteration:
            losses = ", ".join(f"{record.prefix}{name}={value:.6g}" for name, value in record.losses.items())
            files = ", ".join(map(str, record.files)) or "(the samples have no file_name)"
            lines.append(f"rank {rank}: {losses}; files of the batch: {files}")
    raise NonFiniteError("\n  ".join(lines), iteration, of_all_ranks)

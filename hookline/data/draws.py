"""One draw of the training stream: the record, its mapper, and randomness that depends on the draw's number only.

This is what runs in the worker processes.
"""

import contextlib
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from hookline.data.errors import BadSampleError
from hookline.data.serialized import PicklableFunction
from hookline.data.stream import hash_words

Draw = tuple[int, int]
"""The draw's number and the index of the planned sample."""

MAX_ATTEMPTS = 100
# What shows a mistake in the program or an exhausted machine, and is never taken for a bad sample.
NOT_THE_SAMPLE = (MemoryError, NameError, AttributeError, ImportError, NotImplementedError)


class MapperError(RuntimeError):
    """The mapper or collate function failed in a way that no bad sample explains; the text holds its traceback."""


class DrawnBatch(NamedTuple):
    """What a worker sends for a batch; the loader gives only the content to the trainer."""

    content: Any
    skipped: list[str]
    error: Exception | None


class BatchMaker(Dataset):
    """Makes a batch from a list of draws; the "item" that torch's loader asks the workers for.

    Args:
        dataset: records by index.
        mapper: turns a record into a sample, or into ``None`` for one that is not to be used; ``None`` takes records
            as they are.
        collate_fn: turns the list of samples into the batch.
        seed: of all draws.
        skip: whether a bad sample is replaced instead of raised.
        replacement: ``(draw, attempt, index) -> index`` of the sample to take instead; ``None`` where none may be
            replaced.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Any],
        mapper: Callable[[Any], Any] | None,
        collate_fn: Callable[[list[Any]], Any],
        seed: int,
        *,
        skip: bool = False,
        replacement: Callable[[int, int, int], int] | None = None,
    ) -> None:
        self.dataset = dataset
        self._mapper = PicklableFunction(mapper or _as_it_is)
        self._collate = PicklableFunction(collate_fn)
        self._seed, self._skip, self._replacement = seed, skip, replacement

    def __getitem__(self, draws: Sequence[Draw]) -> DrawnBatch:
        skipped: list[str] = []
        try:
            samples = [self._sample(number, index, skipped) for number, index in draws]
            return DrawnBatch(self._collated(samples), skipped, None)
        except (BadSampleError, MapperError) as error:
            return DrawnBatch(None, skipped, error)

    def _sample(self, number: int, planned: int, skipped: list[str]) -> Any:
        # Make the sample of one draw, or of the first replacement that can be used.
        index = planned
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                assert self._replacement is not None
                index = self._replacement(number, attempt, planned)
            try:
                return self._mapped(number, attempt, index)
            except BadSampleError as error:
                may_go_on = self._skip or isinstance(error, _UnwantedSampleError)
                if not may_go_on or self._replacement is None:
                    raise
                skipped.append(str(error))
        raise BadSampleError(f"{MAX_ATTEMPTS} samples in a row cannot be used; the last one: {skipped[-1]}")

    def _mapped(self, number: int, attempt: int, index: int) -> Any:
        # Map one record under its own randomness; every failure becomes an error that names the file.
        record: Any = None
        try:
            with seeded(self._seed, number, attempt):
                record = self.dataset[index]
                name = _name(record, index)
                sample = self._mapper(record)
        except BadSampleError as error:
            error.file_name = error.file_name or _name(record, index)
            raise
        except NOT_THE_SAMPLE as error:
            raise MapperError(_story(f"{self._mapper.name} failed on {_name(record, index)}", error)) from error
        except Exception as error:
            if self._skip:
                raise BadSampleError(f"{type(error).__name__}: {error}", _name(record, index)) from error
            raise MapperError(_story(f"{self._mapper.name} failed on {_name(record, index)}", error)) from error
        if sample is None:
            raise _UnwantedSampleError(f"{self._mapper.name} returned None", name)
        return sample

    def _collated(self, samples: list[Any]) -> Any:
        try:
            return self._collate(samples)
        except Exception as error:
            names = ", ".join(_name(sample, place) for place, sample in enumerate(samples))
            raise MapperError(_story(f"{self._collate.name} failed on the batch of {names}", error)) from error


class _UnwantedSampleError(BadSampleError):
    """The mapper asked for another sample."""


@contextlib.contextmanager
def seeded(seed: int, number: int, attempt: int = 0) -> Iterator[None]:
    """Seed ``random``, ``numpy.random`` and torch's CPU generator for one draw.

    Restores them afterwards in the main process, where the model draws from them too; in a worker nobody else does.

    Args:
        seed: of the run.
        number: of the draw.
        attempt: 0 for the planned sample, then of its replacements.
    """
    words = hash_words(seed, number, attempt)
    generator = torch.default_generator  # torch.manual_seed would queue a call for every GPU each time
    in_main_process = get_worker_info() is None
    if in_main_process:
        before = random.getstate(), np.random.get_state(), generator.get_state()
    random.seed(words[0])
    np.random.seed([words[1] & 0xFFFFFFFF, words[1] >> 32, words[2] & 0xFFFFFFFF, words[2] >> 32])
    generator.manual_seed(words[3])
    try:
        yield
    finally:
        if in_main_process:
            random.setstate(before[0])
            np.random.set_state(before[1])
            generator.set_state(before[2])


def _name(record: Any, index: int) -> str:
    name = record.get("file_name") if isinstance(record, dict) else None
    return str(name) if name else f"sample {index}"


def _story(what: str, error: Exception) -> str:
    """Say what failed; from a worker with the traceback, as only text travels between processes."""
    text = f"{what}: {type(error).__name__}: {error}"
    if get_worker_info() is None:
        return text
    return text + "\n\nIn the worker process:\n" + "".join(traceback.format_exception(error)).rstrip()


def _as_it_is(record: Any) -> Any:
    return record

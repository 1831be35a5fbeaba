"""The loaders: an endless one for training that can begin at any batch, and a finite one for evaluation."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import DataLoader, Dataset

from hookline import distributed
from hookline.data.catalog import Record
from hookline.data.draws import BatchMaker, Draw, DrawnBatch
from hookline.data.serialized import DatasetFromList
from hookline.data.stream import TrainingStream
from hookline.data.workers import explain_death, init_worker, sigterm_held

logger = logging.getLogger(__name__)

OnBadSample = Literal["raise", "skip"]
LOGGED_SKIPS = 20  # one by one; then every hundredth


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """Return the samples as they are: a batch is a list."""
    return batch


class _Loader:
    """Runs a `BatchMaker` in this process or in workers.

    Args:
        maker: makes the batches.
        num_workers: 0 makes them in this process.
        pin_memory: whether batches are put where a GPU can fetch them; where there is a GPU if it is ``None``.
        prefetch_factor: batches that each worker makes ahead.
        worker_init_fn: called with the worker's id in each worker.
    """

    def __init__(
        self,
        maker: BatchMaker,
        *,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.num_workers = num_workers
        self.num_skipped = 0
        self._maker, self._pin_memory, self._prefetch_factor = maker, pin_memory, prefetch_factor
        self._init_worker = functools.partial(init_worker, then=worker_init_fn)

    @property
    def dataset(self) -> Any:
        """The records, or whatever the mapper is applied to."""
        return self._maker.dataset

    @property
    def records(self) -> DatasetFromList | None:
        """The records where the data set is a list of them, else ``None``."""
        dataset = self.dataset
        is_list = isinstance(dataset, DatasetFromList) and len(dataset) and isinstance(dataset[0], dict)
        return dataset if is_list else None

    def _run(self, batches: Iterable[list[Draw]]) -> Iterator[Any]:
        """Make batch after batch; the workers end when the generator is closed or dropped."""
        with sigterm_held():
            source = iter(self._torch_loader(batches))
        try:
            while True:
                try:
                    batch = next(source)
                except StopIteration:
                    return
                except (RuntimeError, ConnectionError, EOFError) as error:
                    raise explain_death(error, self.num_workers) or error from None
                yield self._opened(batch)
        finally:
            if hasattr(source, "_shutdown_workers"):
                self._end_workers(source)

    def _end_workers(self, source: Any) -> None:
        """End the workers; torch tells once more here of one that was killed, which is known by now, or moot.

        Raises:
            RuntimeError: What else torch tells.
        """
        try:
            source._shutdown_workers()
        except RuntimeError as error:
            if explain_death(error, self.num_workers) is None:
                raise

    def _torch_loader(self, batches: Iterable[list[Draw]]) -> DataLoader:
        pin_memory = torch.cuda.is_available() if self._pin_memory is None else self._pin_memory
        return DataLoader(
            self._maker,
            batch_size=None,
            sampler=batches,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(self._init_worker, sharing_strategy=get_sharing_strategy()),
            prefetch_factor=self._prefetch_factor if self.num_workers else None,
            generator=torch.Generator(),  # else each start would draw from the generator that the model uses
        )

    def _opened(self, batch: DrawnBatch) -> Any:
        """Take the content out; log what was skipped, raise what failed."""
        for reason in batch.skipped:
            self.num_skipped += 1
            if self.num_skipped <= LOGGED_SKIPS or self.num_skipped % 100 == 0:
                logger.warning(f"Skipped a sample ({self.num_skipped} so far): {reason}")
        if batch.error is not None:
            raise batch.error
        return batch.content


class TrainLoader(_Loader):
    """Endless batches of training samples: this rank's part of each global batch.

    What a batch holds depends on the stream and the batch's number only; not on the number of workers or processes,
    nor on what was read before.

    Args:
        dataset: records by index.
        mapper: turns a record into a sample; ``None`` takes records as they are.
        stream: says which records make up each global batch.
        collate_fn: turns the list of samples into a batch.
        on_bad_sample: ``"skip"`` replaces, counts and logs a sample that cannot be used, ``"raise"`` raises.
        ids_sha256: hash of the samples' ids, for the fingerprint.
        rank: this process's number; asked from the process group if it is ``None``.
        world_size: the number of processes; asked likewise.
        options: see `_Loader`: ``num_workers, pin_memory, prefetch_factor, worker_init_fn``.

    Raises:
        ValueError: if the global batch cannot be divided among the processes, or an option is not one of its values.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Any],
        mapper: Callable[[Any], Any] | None,
        stream: TrainingStream,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        on_bad_sample: OnBadSample = "raise",
        ids_sha256: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Any,
    ) -> None:
        if on_bad_sample not in ("raise", "skip"):
            raise ValueError(f"on_bad_sample must be 'raise' or 'skip', got {on_bad_sample!r}")
        rank = distributed.get_rank() if rank is None else rank
        world_size = distributed.get_world_size() if world_size is None else world_size
        part = part_size(stream.batch_size, world_size)
        maker = BatchMaker(
            dataset,
            mapper,
            collate_fn or trivial_batch_collator,
            stream.seed,
            skip=on_bad_sample == "skip",
            replacement=stream.replacement,
        )
        super().__init__(maker, **options)
        self._stream, self._ids_sha256 = stream, ids_sha256
        self._part = slice(rank * part, (rank + 1) * part)
        self._start = 0

    @property
    def batch_size(self) -> int:
        """Samples in a global batch, over all processes."""
        return self._stream.batch_size

    @property
    def epoch_length(self) -> int:
        """Samples in an epoch: the data set's size, or the rounded sum of the repeat factors."""
        return self._stream.epoch_length

    def seek(self, num_batches: int) -> None:
        """Let the next iteration begin as if so many global batches had been read; costs the same wherever it goes.

        Raises:
            ValueError: if the number is negative.
        """
        if num_batches < 0:
            raise ValueError(f"cannot begin at batch {num_batches}")
        self._start = num_batches

    def __iter__(self) -> Iterator[Any]:
        """Begin at the batch that `seek` was told, with new workers."""
        return self._run(self._stream.batches(self._start, self._part))

    def plan(self, batch_index: int) -> list[Draw]:
        """Return (draw number, data set index) of every sample of a global batch."""
        return self._stream.draws(batch_index)

    def samples(self, batch_index: int, limit: int | None = None) -> list[Any]:
        """Make the samples of a global batch in this process, e.g. to look at them; the loader's position stays.

        Args:
            batch_index: which batch of the stream.
            limit: make only the first so many.
        """
        batch = self._maker[self.plan(batch_index)[:limit]]
        return list(self._opened(batch))

    def fingerprint(self) -> dict[str, int | str | None]:
        """Return plain values that are equal if and only if the samples come in the same order."""
        return {
            "dataset_size": self._stream.size,
            "ids_sha256": self._ids_sha256,
            "order_sha256": self._stream.order_sha256(),
            "total_batch_size": self._stream.batch_size,
            "seed": self._stream.seed,
        }


class TestLoader(_Loader):
    """Each sample once, in order, shared among the processes; as many batches as it says.

    Args:
        dataset: records by index.
        mapper: turns a record into a sample; ``None`` takes records as they are.
        sampler: gives this rank's indices.
        batch_size: samples in a batch; the last one may be smaller.
        collate_fn: turns the list of samples into a batch.
        options: see `_Loader`: ``num_workers, pin_memory, prefetch_factor, worker_init_fn``.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(
        self,
        dataset: Dataset | Sequence[Any],
        mapper: Callable[[Any], Any] | None,
        sampler: Iterable[int],
        batch_size: int = 1,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        super().__init__(BatchMaker(dataset, mapper, collate_fn or trivial_batch_collator, seed=0), **options)
        self.batch_size = batch_size
        self._indices = list(sampler)

    def __len__(self) -> int:
        return (len(self._indices) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        starts = range(0, len(self._indices), self.batch_size)
        return self._run([[(i, i) for i in self._indices[s : s + self.batch_size]] for s in starts])


def part_size(total_batch_size: int, world_size: int) -> int:
    """Divide a batch among processes.

    Args:
        total_batch_size: images of all of them.
        world_size: the processes.

    Returns:
        The images of one.

    Raises:
        ValueError: if it does not divide; names the nearest that do.
    """
    if total_batch_size % world_size == 0:
        return total_batch_size // world_size
    below = total_batch_size // world_size * world_size
    near = " or ".join(str(n) for n in (below, below + world_size) if n)
    raise ValueError(
        f"total_batch_size={total_batch_size} cannot be divided among {world_size} processes; nearest: {near}"
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def ids_sha256(records: Iterable[Record]) -> str:
    """Hash image ids and file names, without their folder: a data set may move."""
    digest = hashlib.sha256()
    for record in records:
        name = os.path.basename(str(record.get("file_name", "")))
        digest.update(f"{record.get('image_id')!r}\t{name}\n".encode())
    return digest.hexdigest()

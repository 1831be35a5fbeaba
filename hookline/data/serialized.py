"""Lists of records that worker processes share without copying.

A list of Python objects that is read by forked workers is copied bit by bit: each access changes a reference count,
and the page it lies on becomes the worker's own. 118,287 COCO records cost each worker gigabytes that way. One buffer
of pickled bytes has one reference count.
"""

import io
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

SHARED_MEMORY = "/dev/shm"


class DatasetFromList(Dataset):
    """A list as a data set, kept as one buffer of bytes.

    Items are returned as new objects, so changing one does not change the data set. Forked workers share the buffer as
    it is; for spawned ones it moves to shared memory once, and each worker is sent a handle.

    Args:
        lst: the items; anything that pickles.
        copy: return copies of the items; only meant where nothing is serialized, as reading bytes copies anyway.
        serialize: keep bytes; with False the list itself is kept.
    """

    def __init__(self, lst: Sequence[Any], copy: bool = True, serialize: bool = True) -> None:
        self._copy = copy
        self._list: Sequence[Any] | None = None if serialize else lst
        self._bytes, self._ends = _pack(lst if serialize else ())

    def __len__(self) -> int:
        return len(self._ends) if self._list is None else len(self._list)

    def __getitem__(self, index: int) -> Any:
        if self._list is not None:
            return deepcopy(self._list[index]) if self._copy else self._list[index]
        size = len(self._ends)
        if not -size <= index < size:
            raise IndexError(f"index {index} is outside a data set of {size}")
        index %= size
        start = self._ends[index - 1] if index else 0
        return pickle.loads(self._bytes.numpy()[start : self._ends[index]].data)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    @property
    def num_bytes(self) -> int:
        """Size of the buffer in bytes; 0 where the list itself is kept."""
        return self._bytes.numel()

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None and _fits_shared_memory(self._bytes):
            self._bytes.share_memory_()
        return self.__dict__


class MapDataset(Dataset):
    """A data set seen through a function.

    Where the function returns ``None`` for an item, another item takes its place; which one depends on the item's index
    only, so the data set stays the same at every reading.

    Args:
        dataset: what to read from, by index.
        map_func: called with an item; a lambda will do, also for spawned workers.
    """

    MAX_ATTEMPTS = 1000

    def __init__(self, dataset: Dataset | Sequence[Any], map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = PicklableFunction(map_func)

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        """Return the mapped item of an index, or of a replacement.

        Raises:
            RuntimeError: if the function returned ``None`` a thousand times in a row.
        """
        candidates = np.random.default_rng(index % len(self))
        current = index
        for _ in range(self.MAX_ATTEMPTS):
            item = self._map_func(self._dataset[current])
            if item is not None:
                return item
            current = int(candidates.integers(len(self)))
        raise RuntimeError(
            f"{self._map_func.name} returned None for item {index} and {self.MAX_ATTEMPTS - 1} replacements"
        )


class PicklableFunction:
    """A callable that reaches spawned processes even where plain pickle cannot send it, such as a lambda.

    Args:
        function: the callable.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._function(*args, **kwargs)

    @property
    def name(self) -> str:
        """The callable's name, for messages."""
        return getattr(self._function, "__qualname__", type(self._function).__qualname__)

    def __reduce__(self) -> tuple[Any, ...]:
        from hookline.io.pickling import pickle_for_children  # cloudpickle is needed for this alone

        return _function_from_bytes, (pickle_for_children(self._function),)


def _function_from_bytes(content: bytes) -> PicklableFunction:
    return PicklableFunction(pickle.loads(content))


def _pack(items: Sequence[Any]) -> tuple[torch.Tensor, np.ndarray]:
    """Pickle each item behind the other; returns the bytes and where each item ends."""
    stream = io.BytesIO()
    ends = np.empty(len(items), dtype=np.int64)
    for index, item in enumerate(items):
        stream.write(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
        ends[index] = stream.tell()
    if not stream.tell():
        return torch.empty(0, dtype=torch.uint8), ends
    return torch.from_numpy(np.frombuffer(stream.getbuffer(), dtype=np.uint8)), ends


def _fits_shared_memory(buffer: torch.Tensor) -> bool:
    """Tell whether the buffer can move; writing to a full shared memory would end the process with SIGBUS."""
    if buffer.is_shared() or not buffer.numel():
        return False
    return not os.path.isdir(SHARED_MEMORY) or shutil.disk_usage(SHARED_MEMORY).free > 2 * buffer.numel()

"""Records as a torch data set, a whole batch by one call."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset

from hookline.io.ffrecord.part import Bytes
from hookline.io.ffrecord.reader import FileReader, Files

__all__ = ["FFRecordDataset"]


class FFRecordDataset(Dataset[Any]):
    """Map-style data set over the records of FFRecord files, for ``torch.utils.data.DataLoader``.

    The loader asks for all indices of a batch at once. They are read in the order of the disk, and what is not in
    memory yet is fetched at the same time. It works with workers of any start method.

    Args:
        fnames: as for :class:`FileReader`.
        check_data: as for :class:`FileReader`.
        process: turns a record, uint8 (length,), into a sample; a function that can be pickled if workers are spawned.
            Subclasses may overwrite :meth:`process` instead, to see a whole batch.

    Attributes:
        reader: the open files.

    Raises:
        FFRecordError: if a file is no FFRecord file.
    """

    def __init__(
        self, fnames: Files, check_data: bool | str = True, process: Callable[[Bytes], Any] | None = None
    ) -> None:
        self.reader = FileReader(fnames, check_data)
        self._process_one = process

    def process(self, indices: Sequence[int], data: list[Bytes]) -> list[Any]:
        """Turn records into samples.

        Args:
            indices: their numbers.
            data: one array for each.
        """
        return data if self._process_one is None else [self._process_one(record) for record in data]

    def __len__(self) -> int:
        return self.reader.n

    def __getitem__(self, index: int) -> Any:
        return self.process([index], [self.reader.read_one(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of a batch; torch's loader calls this."""
        return self.process(indices, self.reader.read(indices))

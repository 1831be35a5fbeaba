"""A packed folder: files by path, out of an FFRecord file."""

import builtins
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

from hookline.io.ffrecord.errors import ChecksumError, FFRecordError
from hookline.io.ffrecord.index import Tree, decode_index
from hookline.io.ffrecord.part import Bytes
from hookline.io.ffrecord.reader import FileReader, Files

__all__ = ["PackedFolder"]

Path = str | os.PathLike[str]
_T = TypeVar("_T")


class PackedFolder:
    """Read files by path.

    Paths are relative to the folder that was packed and have ``/`` between names; ``.``, doubled and trailing ``/`` are
    ignored, ``..`` and a leading ``/`` are never found. For threads and processes see :class:`FileReader`.

    Args:
        ffr_file: what :func:`pack_folder` wrote: a file, or a folder or list of parts.
        check_data: as for :class:`FileReader`. The index is always checked.
        mapped: as for :class:`FileReader`.

    Attributes:
        reader: the samples by number.
        structure: nested dict; a file is the number of its sample, a folder another dict.

    Raises:
        FFRecordError: if it is damaged, no packed folder, or its index holds anything that an index does not.
    """

    def __init__(self, ffr_file: Files, check_data: bool | str = True, *, mapped: bool | None = None) -> None:
        self.reader = FileReader(ffr_file, check_data, mapped=mapped)
        name = self.reader.fnames[-1]
        if self.reader.n == 0:
            raise FFRecordError(f"{name}: is not a packed folder: it has no samples, hence no index")
        self.structure: Tree = decode_index(self.reader.read_bytes(self.reader.n - 1), self.reader.n - 1, name)
        self._folders: dict[str, Tree] = {}  # those asked for by now, by path

    def read_one(self, path: Path) -> Bytes:
        """Return the content of a file.

        Returns:
            uint8 (length,), writable, in memory of its own.

        Raises:
            ChecksumError: if it is damaged; names file, index and path.
            FileNotFoundError: if it does not exist.
            IsADirectoryError: if it is a folder.
        """
        return self._explained(self.reader.read_one, self._number(path), path)

    def read_bytes(self, path: Path) -> bytes:
        """Return the content of a file as ``bytes``; otherwise as :meth:`read_one`."""
        return self._explained(self.reader.read_bytes, self._number(path), path)

    def read(self, paths: Sequence[Path]) -> builtins.list[Bytes]:
        """Return the contents of many files, in the order asked for.

        Raises:
            ChecksumError: if one is damaged; names file, index and path.
            FileNotFoundError: if one does not exist.
            IsADirectoryError: if one is a folder.
            TypeError: if a single path is given.
        """
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise TypeError(f"read() takes a list of paths; for {paths!r} alone there is read_one()")
        numbers = [self._number(path) for path in paths]
        try:
            return self.reader.read(numbers)
        except ChecksumError:
            for number, path in zip(numbers, paths, strict=True):  # find out which
                self._explained(self.reader.read_one, number, path)
            raise

    def list(
        self, path: Path | None = None, list_file: bool = True, list_dir: bool = True, recursive: bool = False
    ) -> builtins.list[str]:
        """Return what a folder holds, in the order in which it was packed.

        Args:
            path: the folder; the root by default.
            list_file: whether files are in the list.
            list_dir: whether folders are.
            recursive: whether to go down; a folder stands before its content.

        Returns:
            Paths relative to ``path``.

        Raises:
            FileNotFoundError: if it does not exist.
            NotADirectoryError: if it is a file.
        """
        tree = self._find("" if path is None else path)
        if tree is None:
            raise self._missing("" if path is None else path)
        if isinstance(tree, int):
            raise NotADirectoryError(f"{path} in {self._name} is a file, not a folder")
        entries = _walk(tree) if recursive else iter(tree.items())
        return [name for name, entry in entries if (list_dir if isinstance(entry, dict) else list_file)]

    def exists(self, path: Path) -> bool:
        """Say whether there is a file or folder of that path."""
        return self._find(path) is not None

    def is_file(self, path: Path) -> bool:
        """Say whether there is a file of that path."""
        return isinstance(self._find(path), int)

    def is_dir(self, path: Path) -> bool:
        """Say whether there is a folder of that path; ``""`` and ``"."`` are the root."""
        return isinstance(self._find(path), dict)

    def size(self, path: Path) -> int:
        """Return the length of a file in bytes."""
        return self.reader.length(self._number(path))

    def index(self, path: Path) -> int:
        """Return the number of a file's sample."""
        return self._number(path)

    def num_files(self) -> int:
        """Return how many files are packed."""
        return self.reader.n - 1

    def close(self) -> None:
        """Close the files; calling it twice is allowed."""
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), *self.reader.__reduce__()[1][1:])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}): {self.num_files()} files"

    @property
    def _name(self) -> str:
        return self.reader.fnames[0]

    def _find(self, path: Path) -> Any:
        """Return the number of a file, the tree of a folder, or None."""
        if isinstance(path, str):  # the usual case first: a clean path into a folder that was asked for before
            place, slash, name = path.rpartition("/")
            folder = self._folders.get(place) if slash else self.structure
            if folder is not None and name in folder:
                return folder[name]
        node: Any = self.structure
        parts = PurePosixPath(os.fspath(path)).parts
        for i, part in enumerate(parts):
            if not isinstance(node, dict) or part not in node:
                return None
            if i == len(parts) - 1 and i > 0:
                self._folders["/".join(parts[:i])] = node
            node = node[part]
        return node

    def _number(self, path: Path) -> int:
        node = self._find(path)
        if isinstance(node, int):
            return node
        if node is None:
            raise self._missing(path)
        raise IsADirectoryError(f"{os.fspath(path)!r} in {self._name} is not a file but a folder")

    def _missing(self, path: Path) -> FileNotFoundError:
        import difflib

        parts = PurePosixPath(os.fspath(path)).parts
        node, known = self.structure, 0
        while known < len(parts) and isinstance(node.get(parts[known]), dict):
            node, known = node[parts[known]], known + 1
        hint = ""
        if known < len(parts):
            near = difflib.get_close_matches(parts[known], list(node)[:10_000], n=1)
            hint = f"; did you mean {'/'.join((*parts[:known], near[0]))!r}?" if near else ""
        return FileNotFoundError(f"{os.fspath(path)!r} does not exist in {self._name}{hint}")

    def _explained(self, read: Callable[[int], _T], number: int, path: Path) -> _T:
        try:
            return read(number)
        except ChecksumError as error:
            raise ChecksumError(f"{os.fspath(path)!r}, in {error}") from None


def _walk(tree: Tree) -> Iterator[tuple[str, Any]]:
    waiting = [iter([(name, entry) for name, entry in tree.items()])]
    while waiting:
        for name, entry in waiting[-1]:
            yield name, entry
            if isinstance(entry, dict):
                waiting.append(iter([(f"{name}/{inner}", value) for inner, value in entry.items()]))
                break
        else:
            waiting.pop()


def _reopen(kind: type[PackedFolder], fnames: list[str], check_data: bool | str, mapped: bool | None) -> PackedFolder:
    return kind(fnames, check_data, mapped=mapped)

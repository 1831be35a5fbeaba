"""Packing a folder, and unpacking it."""

import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

from hookline.io.ffrecord.errors import FFRecordError
from hookline.io.ffrecord.format import check_suffix
from hookline.io.ffrecord.index import Tree, encode_index
from hookline.io.ffrecord.packed import PackedFolder
from hookline.io.ffrecord.parts import new_folder, open_parts
from hookline.io.ffrecord.reader import Files

__all__ = ["PackReport", "pack_folder", "unpack_folder"]

_logger = logging.getLogger(__name__)


class PackReport(NamedTuple):
    """What was packed: number of files, their bytes together, and (path, reason) of what was left out."""

    num_files: int
    num_bytes: int
    skipped: list[tuple[str, str]]


class _Found(NamedTuple):
    tree: Tree
    files: list[str]
    skipped: list[tuple[str, str]]


def pack_folder(
    folder: str | os.PathLike[str],
    out_file: str | os.PathLike[str],
    verbose: bool = False,
    *,
    num_parts: int = 1,
    progress: bool | None = None,
) -> PackReport:
    """Pack a folder with everything below it. The result appears when it is complete, or not at all.

    Links are followed: a link to a file becomes a file. What is neither file nor folder, and links that lead nowhere,
    are left out, reported, and logged as a warning; so is the output itself, should it lie in the folder.

    Args:
        folder: what to pack; its own name is not kept.
        out_file: the ``.ffr`` file, or a new folder if there are several parts.
        verbose: whether to print a line for each file.
        num_parts: into how many files; each has about as many samples.
        progress: whether to show a progress bar; by default where standard error is a terminal.

    Returns:
        What was packed and what was left out.

    Raises:
        FFRecordError: if a link leads back to a folder that holds it.
        NotADirectoryError: if ``folder`` is none.
        OSError: if something cannot be read or written; then nothing appears.
        ValueError: if the name of the file does not end in ``.ffr``.
    """
    from tqdm import tqdm

    if num_parts == 1:
        check_suffix(out_file)
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"{os.fspath(folder)}: is no folder that could be packed")
    found = _scan(os.fspath(folder), os.fspath(out_file))
    for path, reason in found.skipped:
        _logger.warning("not packed: %s: %s", path, reason)
    index, total = encode_index(found.tree), 0
    hidden = None if progress is None else not progress
    with (
        open_parts(out_file, len(found.files) + 1, num_parts) as writer,
        tqdm(total=len(found.files), desc="packing", unit="file", disable=hidden) as bar,
    ):
        for path in found.files:
            length = writer.write_file(path)
            total += length
            if verbose:
                bar.write(f"{path} ({length} bytes)")
            bar.update()
        writer.write_one(index)
    return PackReport(len(found.files), total, found.skipped)


def unpack_folder(
    ffr_file: Files,
    target: str | os.PathLike[str],
    *,
    check_data: bool = True,
    progress: bool | None = None,
) -> int:
    """Write all files of a packed folder to a new folder, which appears when it is complete.

    Names that lead out of the target cannot be in an index: opening it refuses them.

    Args:
        ffr_file: what was packed.
        target: a name that is free, or an empty folder.
        check_data: whether checksums are verified.
        progress: whether to show a progress bar; by default where standard error is a terminal.

    Returns:
        How many files were written.

    Raises:
        FFRecordError: if something is damaged; then nothing appears.
        FileExistsError: if the target exists and is not empty.
    """
    from tqdm import tqdm

    hidden = None if progress is None else not progress
    with PackedFolder(ffr_file, check_data) as pack, new_folder(target) as folder:
        files = pack.list(list_dir=False, recursive=True)
        for name in pack.list(list_file=False, recursive=True):
            folder.joinpath(*name.split("/")).mkdir()
        for name in tqdm(files, desc="unpacking", unit="file", disable=hidden):
            folder.joinpath(*name.split("/")).write_bytes(pack.read_one(name).data)
    return len(files)


def _scan(folder: str, out_file: str) -> _Found:
    """Find what is to be packed, without opening any file.

    Raises:
        FFRecordError: if the folders are nested too deeply, or a link leads back.
    """
    found = _Found({}, [], [])
    own = _identity(out_file)
    top = _identity(folder)
    assert top is not None
    try:
        _scan_into(found.tree, folder, [top], own, found)
    except RecursionError:
        raise FFRecordError(f"{folder}: the folders are nested too deeply to be packed") from None
    return found


def _scan_into(
    tree: Tree, folder: str, above: list[tuple[int, int]], own: tuple[int, int] | None, found: _Found
) -> None:
    """Go through one folder by the code points of names, files and folders mixed, as the original does.

    Raises:
        FFRecordError: if a link leads back.
        OSError: if a folder cannot be read.
    """
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        try:
            status = entry.stat()
        except OSError as error:
            if not entry.is_symlink():
                raise
            found.skipped.append((entry.path, f"a link that leads nowhere ({error.strerror})"))
            continue
        identity = (status.st_dev, status.st_ino)
        if identity == own:
            found.skipped.append((entry.path, "the output of an earlier packing"))
        elif stat.S_ISDIR(status.st_mode):
            if identity in above:
                raise FFRecordError(f"{entry.path}: links back to a folder that holds it, so packing would never end")
            tree[entry.name] = {}
            _scan_into(tree[entry.name], entry.path, [*above, identity], own, found)
        elif stat.S_ISREG(status.st_mode):
            tree[entry.name] = len(found.files)
            found.files.append(entry.path)
        else:
            found.skipped.append((entry.path, "neither file nor folder (a pipe, socket or device)"))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino

"""``hookline pack``, ``hookline unpack`` and ``hookline ffr``: folders in FFRecord files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hookline.io.ffrecord import FileReader, PackedFolder

__all__ = ["run_ffr", "run_pack", "run_unpack"]


def run_pack(argv: Sequence[str]) -> int:
    """Run ``hookline pack``.

    Args:
        argv: the arguments behind it.

    Returns:
        Exit code: 0 done, 1 the folder cannot be packed, 2 the call is wrong.
    """
    parser = argparse.ArgumentParser(prog="hookline pack", description="Pack a folder into an FFRecord file.")
    parser.add_argument("folder", metavar="FOLDER", help="what to pack; its own name is not kept")
    parser.add_argument("output", metavar="OUT.ffr", help="the file; with --split, a new folder")
    parser.add_argument("--split", type=int, default=1, metavar="N", help="write N parts into the folder OUT.ffr")
    parser.add_argument("-v", "--verbose", action="store_true", help="print a line for each file")
    return _run(parser, argv, _pack)


def run_unpack(argv: Sequence[str]) -> int:
    """Run ``hookline unpack``.

    Args:
        argv: the arguments behind it.

    Returns:
        Exit code: 0 done, 1 the file cannot be unpacked, 2 the call is wrong.
    """
    parser = argparse.ArgumentParser(prog="hookline unpack", description="Write a packed folder's files to a folder.")
    parser.add_argument("file", metavar="FILE.ffr", help="the packed folder, or the folder of its parts")
    parser.add_argument("folder", metavar="FOLDER", help="where to; new or empty")
    return _run(parser, argv, _unpack)


def run_ffr(argv: Sequence[str]) -> int:
    """Run ``hookline ffr ls|verify|stat``.

    Args:
        argv: the arguments behind ``hookline ffr``.

    Returns:
        Exit code: 0 done, 1 a file is damaged or missing, 2 the call is wrong.
    """
    parser = argparse.ArgumentParser(prog="hookline ffr", description="Look into FFRecord files.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    ls = actions.add_parser("ls", help="list what a packed folder holds")
    ls.add_argument("-l", "--long", action="store_true", help="with sizes in bytes and sample numbers")
    ls.add_argument("-r", "--recursive", action="store_true", help="with everything below")
    verify = actions.add_parser("verify", help="read everything and check it")
    stat = actions.add_parser("stat", help="print numbers and sizes")
    for action in (ls, verify, stat):
        action.add_argument("file", metavar="FILE.ffr", help="a file, or a folder of parts")
    ls.add_argument("path", metavar="PATH", nargs="?", default="", help="a folder in it (default: all)")
    functions = {"ls": _list, "verify": _verify, "stat": _stat}
    return _run(parser, argv, lambda args: functions[args.action](args))


def _run(parser: argparse.ArgumentParser, argv: Sequence[str], action: Callable[[argparse.Namespace], int]) -> int:
    try:
        args = parser.parse_args(list(argv))
    except SystemExit as stop:  # argparse has said why, or has shown the help
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return action(args)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def _pack(args: argparse.Namespace) -> int:
    from hookline.io.ffrecord import pack_folder

    report = pack_folder(args.folder, args.output, args.verbose, num_parts=args.split)
    for path, reason in report.skipped:
        print(f"not packed: {path}: {reason}", file=sys.stderr)
    left_out = f", {len(report.skipped)} left out" if report.skipped else ""
    print(f"{args.output}: {report.num_files} files, {report.num_bytes} bytes{left_out}")
    return 0


def _unpack(args: argparse.Namespace) -> int:
    from hookline.io.ffrecord import unpack_folder

    print(f"{args.folder}: {unpack_folder(args.file, args.folder)} files")
    return 0


def _list(args: argparse.Namespace) -> int:
    from hookline.io.ffrecord import PackedFolder

    with PackedFolder(args.file) as pack:
        for name in pack.list(args.path, recursive=args.recursive):
            path = f"{args.path}/{name}".lstrip("/") if args.path not in ("", ".") else name
            print((_row(pack, path) if args.long else "") + _shown(name) + ("/" if pack.is_dir(path) else ""))
    return 0


def _row(pack: PackedFolder, path: str) -> str:
    return f"{pack.size(path):>12} {pack.index(path):>9} " if pack.is_file(path) else f"{'-':>12} {'-':>9} "


def _shown(name: str) -> str:
    """Make a name printable that is no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _verify(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from hookline.io.ffrecord import ChecksumError, FileReader

    damaged = 0
    with FileReader(args.file) as reader:
        paths = _paths(reader, args.file)
        for i in tqdm(range(reader.n), desc="verifying", unit="sample", disable=None):
            try:
                reader.read_one(i)
            except ChecksumError as error:
                damaged += 1
                print(f"{_shown(paths[i])}, in {error}" if i in paths else error, file=sys.stderr)
    print(f"{args.file}: {reader.n} samples, {damaged or 'none'} damaged")
    return 1 if damaged else 0


def _paths(reader: FileReader, file: str) -> dict[int, str]:
    """Return the paths by sample if it is a packed folder, else nothing."""
    from hookline.io.ffrecord import FFRecordError, PackedFolder

    try:
        with PackedFolder(file) as pack:
            return {pack.index(path): path for path in pack.list(list_dir=False, recursive=True)}
    except FFRecordError:  # a damaged index is among what is reported anyway
        return {}


def _stat(args: argparse.Namespace) -> int:
    import numpy as np

    from hookline.io.ffrecord import FFRecordError, FileReader, PackedFolder
    from hookline.io.ffrecord.checksums import IMPLEMENTATION

    with FileReader(args.file) as reader:
        lengths = np.concatenate([np.diff(reader.get_offsets(part)) for part in range(len(reader.fnames))])
        print(f"files      {len(reader.fnames)}")
        print(f"samples    {reader.n}, {int(lengths.sum())} bytes")
        if reader.n:
            print(f"lengths    {lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}")
    try:
        with PackedFolder(args.file) as pack:
            folders = len(pack.list(list_file=False, recursive=True))
            print(f"folder     {pack.num_files()} files, {folders} folders, index of {lengths[-1]} bytes")
    except FFRecordError as error:
        print(f"folder     no: {error}")
    print(f"checksums  by {IMPLEMENTATION}")
    return 0

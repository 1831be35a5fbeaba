"""``hookline consolidate``: an ordinary checkpoint file of a sharded one."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run"]


def run(argv: Sequence[str]) -> int:
    """Run the command; it needs neither a GPU nor other processes.

    Args:
        argv: the arguments behind ``hookline consolidate``.

    Returns:
        Exit code: 0 done, 1 the checkpoint cannot be read or the file not written, 2 the call is wrong.
    """
    try:
        args = _parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has said why, or has shown the help
        return stop.code if isinstance(stop.code, int) else 2
    try:
        _check_call(Path(args.folder), args.file)
    except ValueError as error:
        print(f"hookline consolidate: {error}", file=sys.stderr)
        return 2
    from hookline.engine import CheckpointError  # now, since a wrong call must not wait for torch

    try:
        print(consolidate(args.folder, args.file, model_only=args.model_only))
    except (CheckpointError, ValueError) as error:
        print(f"hookline consolidate: {error}", file=sys.stderr)
        return 1
    return 0


def consolidate(folder: str, file: str, *, model_only: bool = False) -> str:
    """Write an ordinary checkpoint: ``{model, optimizer, iteration, trainer, hooks, meta}``.

    Args:
        folder: a sharded checkpoint ``<name>.dcp``, or the folder of a run, of which the newest whole one is taken.
        file: the file to write, which appears whole or not at all.
        model_only: leave out all but the model; from such a file one can start, but not resume.

    Returns:
        What was done, in words.

    Raises:
        ValueError: if the folder has no sharded checkpoint, or the file no usual ending.
        CheckpointError: if the checkpoint is damaged or the file cannot be written.
    """
    from hookline.engine import CheckpointError
    from hookline.engine.checkpoint_read import damage_of, read_checkpoint
    from hookline.engine.checkpoint_state import tensor_bytes
    from hookline.engine.checkpoint_write import write_checkpoint

    _check_call(Path(folder), file)
    source = _checkpoint_in(Path(folder))
    damage = damage_of(source)
    if damage is not None:
        raise CheckpointError(f"{source} is damaged: {damage}")
    started = time.perf_counter()
    content = read_checkpoint(source)
    if model_only:
        content = {"model": content["model"], "meta": {**content.get("meta", {}), "slim": True}}
    write_checkpoint(file, content)
    size = tensor_bytes(content) / 2**20
    return f"{file}: {', '.join(content)} of {source}, {size:.1f} MiB in {time.perf_counter() - started:.1f} s"


def _check_call(folder: Path, file: str) -> None:
    """Find what can be found without torch.

    Raises:
        ValueError: if there is no such folder, or the file has no usual ending.
    """
    if not folder.is_dir():
        what = (
            "this is a file, expected the folder of a sharded checkpoint"
            if folder.exists()
            else "there is no such folder"
        )
        raise ValueError(f"FOLDER {str(folder)!r}: {what}")
    if not file.endswith(".pth"):
        raise ValueError(f"FILE {file!r}: expected a name that ends in .pth")


def _checkpoint_in(folder: Path) -> Path:
    """Find the checkpoint that is meant.

    Raises:
        ValueError: if there is none.
    """
    from hookline.engine.checkpoint_files import CheckpointFolder
    from hookline.engine.checkpoint_read import damage_of
    from hookline.engine.checkpoint_shards import is_shard_folder

    if is_shard_folder(folder):
        return folder
    found = [path for path in CheckpointFolder(folder).newest_first() if is_shard_folder(path)]
    whole = next((path for path in found if damage_of(path) is None), None)
    if whole is None:
        what = f"only damaged ones: {', '.join(path.name for path in found)}" if found else "none"
        raise ValueError(
            f"FOLDER {str(folder)!r}: expected a sharded checkpoint, or a folder that has one; it has {what}"
        )
    return whole


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookline consolidate", description="Make an ordinary checkpoint file of a sharded one (train.fsdp)."
    )
    parser.add_argument("folder", metavar="FOLDER", help="a checkpoint NAME.dcp, or a run's folder for its newest one")
    parser.add_argument("file", metavar="FILE", help="the file to write, ending in .pth; one that is there is replaced")
    parser.add_argument("--model-only", action="store_true", help="leave out what resuming needs")
    return parser

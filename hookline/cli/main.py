"""The command ``hookline``: one subcommand a tool, each imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from hookline.signals import obey_sigterm_as_process_1

__all__ = ["main"]

# subcommand: (module with the function, function, one line of help)
COMMANDS = {
    "train": ("hookline.cli.train", "run", "train or evaluate what a recipe describes (the same as train_net.py)"),
    "demo": ("hookline.cli.demo", "run", "draw a balloon data set, train Mask R-CNN on it, evaluate, save pictures"),
    "print-config": ("hookline.cli.print_config", "run", "print a recipe with its overrides applied"),
    "plot-schedule": ("hookline.cli.plot_schedule", "run", "draw a recipe's schedules to a PNG"),
    "convert": ("hookline.cli.convert", "run", "convert annotations, e.g. VIA to COCO"),
    "consolidate": ("hookline.cli.consolidate", "run", "make an ordinary checkpoint of a sharded one"),
    "browse": ("hookline.cli.browse", "run", "draw the ground truth of a data set"),
    "pack": ("hookline.cli.pack", "run_pack", "pack a folder into an FFRecord file"),
    "unpack": ("hookline.cli.pack", "run_unpack", "write a packed folder's files to a folder"),
    "ffr": ("hookline.cli.pack", "run_ffr", "list, verify or describe FFRecord files"),
    "profile": ("hookline.cli.profile", "run", "train a few steps and print where their time goes"),
    "slurm": ("hookline.cli.slurm", "run", "write the sbatch script of a training, show it, submit it"),
    "env": ("hookline.cli.environment", "run", "print versions and devices"),
}


def main(argv: list[str] | None = None) -> int:
    """Run ``hookline SUBCOMMAND ...``.

    Args:
        argv: the arguments behind ``hookline``; those of the process by default.

    Returns:
        The exit code: 0 done, 1 failed, 2 a wrong call.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  else Python complains when it flushes
        return 0


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in {"-V", "--version"}:
        from hookline import __version__

        print(f"hookline {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"hookline: there is no command {name!r}{hint}\n\n{_help()}", file=sys.stderr)
        return 2
    obey_sigterm_as_process_1()
    module, function, _ = COMMANDS[name]
    return getattr(importlib.import_module(module), function)(rest)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, _, text) in COMMANDS.items())
    return f"usage: hookline COMMAND ...\n\ncommands (each answers --help):\n{rows}"


if __name__ == "__main__":
    sys.exit(main())

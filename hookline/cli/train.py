"""``python train_net.py`` and ``hookline train``: read the command line, start the processes, answer with an exit code.

What each process does is in ``hookline/cli/job.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from hookline.cli.notices import early_signal, remembered
from hookline.config.command_line import default_argument_parser
from hookline.signals import obey_sigterm_as_process_1

__all__ = ["main", "parse_arguments", "run", "run_to_end"]

_TORCH_LEVEL = "TORCH_CPP_LOG_LEVEL"


def parse_arguments(argv: list[str] | None = None, prog: str = "train_net.py") -> argparse.Namespace:
    """Read the command line; settings may stand anywhere between the flags.

    Args:
        argv: the arguments; those of the process by default.
        prog: the name shown in messages.

    Returns:
        The arguments, with every setting, also those of ``--cfg-options``, in ``opts``.
    """
    parser = default_argument_parser(prog)
    args = parser.parse_intermixed_args(_resume_last(sys.argv[1:] if argv is None else argv))
    args.opts += args.cfg_options
    args.cfg_options = []
    _refuse_contradictions(parser, args)
    return args


def _resume_last(argv: list[str]) -> list[str]:
    """Read `--resume train.max_iter=40` as `--resume` and a setting in its place, unless there is such a file."""
    for place, (word, following) in enumerate(pairwise(argv)):
        if word == "--resume" and "=" in following and not following.startswith("-") and not Path(following).exists():
            return [*argv[:place], *argv[place + 1 :], word]
    return argv


def _refuse_contradictions(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.num_gpus and args.num_procs:
        parser.error("--num-gpus and --num-procs exclude each other: GPU processes, or CPU processes")
    for name in ("num_gpus", "num_procs", "num_machines"):
        value = getattr(args, name)
        least = 0 if name == "num_gpus" else 1
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} {value}: expected at least {least}")
    if args.eval_only and args.resume:
        parser.error("--eval-only evaluates train.init_checkpoint=FILE; it does not go with --resume")
    if args.out and Path(args.out).suffix not in {".json", ".pkl"}:
        parser.error(f"--out takes a file ending in .json or .pkl, got {args.out!r}")


def main(argv: list[str] | None = None, prog: str = "train_net.py") -> int:
    """Train or evaluate.

    Args:
        argv: the arguments; those of the process by default.
        prog: the name shown in messages.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the call or the recipe is wrong, 128 + signal on a signal.
    """
    args = parse_arguments(argv, prog)
    obey_sigterm_as_process_1()
    try:
        with _quiet_torch(), contextlib.nullcontext() if args.eval_only else remembered():
            return _launch(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keep torch's C++ parts from writing a stack for each connection that ends; what it means is said by the ranks.

    torch looks at the variable when it is imported, so it counts in this process and in the ranks that it starts.
    """
    if _TORCH_LEVEL in os.environ:
        yield
        return
    os.environ[_TORCH_LEVEL] = "ERROR"
    try:
        yield
    finally:
        del os.environ[_TORCH_LEVEL]


def run(argv: list[str]) -> int:
    """Run ``hookline train``.

    Args:
        argv: the arguments behind it.

    Returns:
        The exit code.
    """
    return main(argv, "hookline train")


def run_to_end(program: Callable[[], int]) -> NoReturn:
    """Run a program and end the process; one that was a rank of torchrun or srun ends without aborting on its way.

    Args:
        program: returns the exit code.

    Raises:
        SystemExit: where the process was no rank.
    """
    try:
        code = program()
    except SystemExit as stop:
        if not isinstance(stop.code, int):
            raise
        code = stop.code
    launch_end = sys.modules.get("hookline.engine.launch_end")  # not imported where no rank was started
    if launch_end is not None and launch_end.has_been_rank():
        launch_end.end_process(code)
    raise SystemExit(code)


def _launch(args: argparse.Namespace) -> int:
    # from here on torch is needed, which takes seconds to import: --help and wrong calls have been answered
    from hookline.cli.errors import Reporter, UsageError
    from hookline.cli.job import check_recipe, run
    from hookline.cli.preflight import check_batch_size
    from hookline.cli.process_settings import launch_options
    from hookline.engine.launch import launch
    from hookline.engine.logger import close_logger, setup_logger

    report = Reporter()
    setup_logger()  # for what is said before the run has its own log: how it is started, and why
    try:
        cfg = check_recipe(args)
        if args.num_gpus and cfg.train.device == "cpu":
            raise UsageError(
                f"--num-gpus {args.num_gpus} and train.device='cpu' contradict each other: processes on the CPU are "
                f"asked for by --num-procs {args.num_gpus}"
            )
        # what is not given stays None, so that the environment decides
        launch(
            run,
            args.num_gpus or 0,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
            num_procs_per_machine=args.num_procs,
            launcher=args.launcher,
            early_signal=None if args.eval_only else early_signal,
            on_failure=report,
            check=None if args.eval_only else partial(check_batch_size, cfg),
            **launch_options(cfg),
        )
    except Exception as error:
        return report(error)
    finally:
        close_logger()
    return 0


if __name__ == "__main__":
    run_to_end(main)

"""The command line that every training script shares. Nothing here imports torch, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import NoReturn

from hookline.config.errors import did_you_mean

__all__ = ["ArgumentParser", "default_argument_parser"]

_UNKNOWN = "unrecognized arguments: "  # argparse's words

_EPILOG = """examples:
  a laptop               {prog} --config-file balloon/mask_rcnn_tiny.py
  change any setting     {prog} --config-file RECIPE train.max_iter=500 optimizer.lr=0.01
  several GPUs           {prog} --config-file RECIPE --num-gpus 8
  several CPU processes  {prog} --config-file RECIPE --num-procs 2 train.device=cpu
  several machines       {prog} --config-file RECIPE --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
  under Slurm            srun {prog} --config-file RECIPE --launcher slurm
  continue a run         {prog} --config-file RECIPE --work-dir DIR --resume
  evaluate               {prog} --config-file RECIPE --eval-only train.init_checkpoint=FILE
"""


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, which answers a wrong call in one line, with the nearest flag, instead of all the flags there are.

    Attributes:
        behind_dashes: Flags of another program, which stand behind ``--``.
    """

    behind_dashes: Collection[str] = ()

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with code 2.

        Args:
            message: what is wrong.
        """
        words = message.removeprefix(_UNKNOWN).split() if message.startswith(_UNKNOWN) else []
        unknown = [word for word in words if word.startswith("-")]
        if unknown:  # argparse names what follows them, too
            message = f"{_UNKNOWN}{' '.join(unknown)}{self._hint(unknown[0].split('=')[0])}"
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists all flags)\n")

    def _hint(self, flag: str) -> str:
        meant = f"--{flag.strip('-').replace('_', '-')}"
        if meant in self.behind_dashes:
            return f"; flags of the training come behind --: ... -- {meant}"
        return did_you_mean(meant, [meant] if meant in self.flags() else self.flags())

    def flags(self) -> list[str]:
        """Return the names of all flags."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def default_argument_parser(prog: str = "train_net.py", epilog: str | None = None) -> ArgumentParser:
    """Make the parser of a training script; scripts add their own arguments to it.

    Args:
        prog: the name shown in the usage line.
        epilog: text below the list of arguments; examples by default.
    """
    parser = ArgumentParser(
        prog=prog,
        description="Train or evaluate what a recipe describes.",
        epilog=_EPILOG.format(prog=prog) if epilog is None else epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--config-file",
        metavar="RECIPE",
        required=True,
        help="path or packaged name of the recipe, or a saved config.yaml",
    )
    add("--work-dir", metavar="DIR", help="where results go; the same as train.output_dir=DIR")
    add("--eval-only", action="store_true", help="evaluate train.init_checkpoint, do not train")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="continue from FILE, or from the newest checkpoint in the work dir; starts fresh where there is none",
    )
    add("--load-from", metavar="FILE", help="start from these weights; the same as train.init_checkpoint=FILE")
    add("--no-validate", action="store_true", help="no evaluation during and after training")
    add("--show-dir", metavar="DIR", help="save pictures of the predictions of an evaluation in DIR")
    add("--out", metavar="FILE", help="save the raw results of an evaluation (.json COCO results, or .pkl)")
    add("--fast-dev-run", action="store_true", help="two steps, one evaluation, one checkpoint on a slice of the data")
    add(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate from train.reference_batch_size to this run's; train.auto_scale_lr=true",
    )
    processes = parser.add_argument_group(
        "processes", "What is not given here, torchrun, Slurm or the cluster decides."
    )
    processes.add_argument("--num-gpus", type=int, metavar="N", help="GPUs to use on this machine")
    processes.add_argument("--num-procs", type=int, metavar="N", help="CPU processes to use on this machine")
    processes.add_argument("--num-machines", type=int, metavar="N", help="machines of the job")
    processes.add_argument("--machine-rank", type=int, metavar="K", help="which of them this one is, from 0")
    processes.add_argument("--dist-url", metavar="URL", help="tcp://HOST:PORT of machine 0; a free port on one machine")
    processes.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        help="who starts the processes: this program, torchrun or srun; by default the environment decides",
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="key=value",
        help="settings to change: key=value, +new.key=value, ~key (Hydra's grammar for values)",
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="key=value", help="the same, as in MMDetection")
    return parser

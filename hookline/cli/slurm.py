"""``hookline slurm RECIPE ...``: write the sbatch script of a run, show it, submit it. ``--help`` needs no torch."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hookline.config.command_line import ArgumentParser, default_argument_parser

__all__ = ["run", "write_script"]

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")  # minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm, d-hh:mm:ss
# the signals that the trainer takes as a wish to stop, by name and by number
_SIGNAL = re.compile(r"(?:[RB]{1,2}:)?(?:SIG)?(?:USR1|USR2|TERM|10|12|15)(?:@\d+)?")

_OWN = ("--num-gpus", "--num-procs", "--num-machines", "--machine-rank", "--launcher", "--config-file")

_EPILOG = """examples:
  16 GPUs on two machines   hookline slurm RECIPE --partition dev --job-name n --gpus 16
  8 processes on the CPU    hookline slurm RECIPE --partition dev --job-name n --procs 8
  a long run in short jobs  hookline slurm RECIPE ... --gpus 8 --time 4:00:00 --requeue --signal USR1@120
  flags of the training     hookline slurm RECIPE ... --gpus 8 optimizer.lr=0.01 -- --auto-scale-lr
"""


def run(argv: list[str]) -> int:
    """Write the script, show it, and submit it where that is asked for.

    Args:
        argv: the words behind ``hookline slurm``.

    Returns:
        The exit code: 0 done, 1 Slurm refused, 2 the call or the recipe is wrong.
    """
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    options = parser.parse_intermixed_args(argv[:cut])
    _check(parser, options)
    from hookline.cli.errors import report
    from hookline.cli.train import parse_arguments

    command = _train_arguments(options, argv[cut + 1 :])
    arguments = parse_arguments(command, "hookline slurm ... --")
    # a wrong setting is found now, not after hours in the queue
    from hookline.cli.job import check_recipe
    from hookline.cli.preflight import check_batch_size
    from hookline.cli.settings import load_settings

    try:
        cfg = check_recipe(arguments)
        if not arguments.eval_only:
            check_batch_size(cfg, options.gpus or options.procs)
        folder = Path(load_settings(arguments).train.output_dir).absolute()
        file = write_script(options, command, folder, f"hookline slurm {shlex.join(argv)}")
    except Exception as error:
        return report(error)
    print(file.read_text("utf-8"), end="")
    if options.submit:
        return _submit(file)
    print(f"\n# written to {file}; submit it by --submit, or: sbatch {shlex.quote(str(file))}")
    return 0


def write_script(options: argparse.Namespace, command: list[str], folder: Path, written_by: str) -> Path:
    """Write the sbatch script of a run into the run's folder.

    Args:
        options: what ``hookline slurm`` was given.
        command: the arguments of the training.
        folder: where the run's results go; made if it is not there, since Slurm writes its output there.
        written_by: the command line, for a comment.

    Returns:
        The script's path.
    """
    lines = ["#!/bin/bash", f"# written by: {' '.join(written_by.split())}"]
    lines += [f"#SBATCH {line}" for line in _directives(options, folder)]
    lines += ["", f"cd {shlex.quote(str(Path.cwd()))} || exit", *options.setup]
    words = [options.python, "-m", "hookline.cli.train", *command]
    # exec: what Slurm sends to the script reaches srun, which hands it on to the tasks. srun does not take over
    # sbatch's CPUs of a task since Slurm 22.05
    lines += [f"exec srun --kill-on-bad-exit=1 --cpus-per-task={_cpus(options)} {shlex.join(words)}"]
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(options.script).absolute() if options.script else folder / "slurm.sh"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    file.chmod(0o755)
    return file


def _directives(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Give the options of sbatch, in its own words."""
    nodes, tasks = _layout(options)
    yield f"--job-name={shlex.quote(options.job_name)}"
    yield f"--partition={shlex.quote(options.partition)}"
    yield f"--nodes={nodes}"
    yield f"--ntasks-per-node={tasks}"
    if options.gpus:
        yield f"--gres=gpu:{tasks}"  # a task has the GPU of its local number, and sees those of its peers
    yield f"--cpus-per-task={_cpus(options)}"
    if options.mem:
        yield f"--mem={options.mem}"
    if options.time:
        yield f"--time={options.time}"
    yield "--requeue" if options.requeue else "--no-requeue"
    if options.signal:
        yield f"--signal={options.signal}"
    yield "--open-mode=append"  # a job that comes again goes on in its file
    yield f"--output={shlex.quote(str(folder / 'slurm-%j.out'))}"
    yield from options.sbatch


def _cpus(options: argparse.Namespace) -> int:
    return options.cpus_per_task or (5 if options.gpus else 1)


def _layout(options: argparse.Namespace) -> tuple[int, int]:
    """Spread the processes over machines: their number, and the processes on each."""
    total = options.gpus or options.procs
    most = options.gpus_per_node if options.gpus else options.procs_per_node or total
    tasks = min(total, most)
    return total // tasks, tasks


def _train_arguments(options: argparse.Namespace, more: list[str]) -> list[str]:
    arguments = ["--config-file", options.recipe, "--launcher", "slurm"]
    settings = []
    if options.work_dir:
        arguments += ["--work-dir", options.work_dir]
    if options.procs:
        arguments += ["--num-procs", str(_layout(options)[1])]
        settings += ["train.device=cpu"]
    if options.requeue:
        if "--eval-only" not in more:
            arguments += [] if "--resume" in more else ["--resume"]  # starts fresh where there is nothing yet
        if options.signal:  # sent near the time limit, where Slurm does not requeue by itself
            settings += ["train.suspend.on_suspend=requeue"]
    # the last one of two settings counts, so those that were given win
    return arguments + more + settings + options.opts


def _submit(file: Path) -> int:
    if shutil.which("sbatch") is None:
        print(f"hookline slurm: there is no sbatch on this machine; {file} is written", file=sys.stderr)
        return 1
    answer = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False)
    if answer.returncode:
        print(f"hookline slurm: sbatch {file} answered {answer.returncode}: {answer.stderr.strip()}", file=sys.stderr)
        return 1
    job = answer.stdout.strip().split(";")[0]  # a cluster's name may follow
    print(f"\n# submitted as job {job}")
    return 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what Slurm would refuse, or would do otherwise than meant."""
    if bool(options.gpus) == bool(options.procs):
        parser.error("give --gpus N, or --procs N for the CPU")
    for name in ("gpus", "procs", "gpus_per_node", "procs_per_node", "cpus_per_task"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: expected at least 1")
    nodes, tasks = _layout(options)
    if nodes * tasks != (options.gpus or options.procs):
        flag, total = ("gpus", options.gpus) if options.gpus else ("procs", options.procs)
        near = f"{nodes * tasks} or {(nodes + 1) * tasks}"
        parser.error(f"--{flag} {total} do not fill machines of {tasks}; nearest that do: {near} (--{flag}-per-node)")
    if options.time and not _TIME.fullmatch(options.time):
        parser.error(f"--time {options.time}: expected minutes, hours:minutes:seconds or days-hours:minutes:seconds")
    if options.signal and not _SIGNAL.fullmatch(options.signal):
        parser.error(f"--signal {options.signal}: expected USR1, USR2 or TERM and seconds before the end: USR1@90")
    for name in ("job_name", "partition"):
        if not re.fullmatch(r"[\w.,:@+=/-]+", getattr(options, name)):
            parser.error(
                f"--{name.replace('_', '-')} {getattr(options, name)!r}: expected letters, digits and .,:@+=/-"
            )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="hookline slurm",
        description="Write the sbatch script of a training, show it, and submit it with --submit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # this program spreads the processes, by flags of its own
    parser.behind_dashes = [name for name in default_argument_parser().flags() if name not in _OWN]
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="path or packaged name of the recipe")
    add("opts", nargs="*", metavar="key=value", help="settings to change; flags of the training come behind --")
    add("--partition", required=True, metavar="NAME", help="where the job goes")
    add("--job-name", required=True, metavar="NAME", help="what it is called")
    add("--gpus", type=int, metavar="N", help="GPUs of the job, one process each")
    add("--gpus-per-node", type=int, default=8, metavar="N", help="GPUs of a machine (default: %(default)s)")
    add("--procs", type=int, metavar="N", help="processes on the CPU, instead of --gpus")
    add("--procs-per-node", type=int, metavar="N", help="of them on one machine (default: all)")
    add("--cpus-per-task", type=int, metavar="N", help="CPUs of a process (default: 5 beside a GPU, else 1)")
    add("--mem", metavar="SIZE", help="memory of a machine, such as 64G")
    add("--time", metavar="LIMIT", help="such as 4:00:00 or 2-00:00:00")
    add("--work-dir", metavar="DIR", help="where results, the script and Slurm's output go (default: the recipe's)")
    add("--requeue", action="store_true", help="the job may come again, and goes on where it stopped (--resume)")
    add(
        "--signal",
        metavar="SIGNAL",
        help="such as USR1@90: save 90 s before the time limit; with --requeue, come again",
    )
    add("--sbatch", action="append", default=[], metavar="OPTION", help="a further option of sbatch: --sbatch=--qos=x")
    add("--setup", action="append", default=[], metavar="LINE", help="a line of shell before srun, such as module load")
    add("--python", default=sys.executable, metavar="FILE", help="the interpreter on the machines (default: this one)")
    add("--script", metavar="FILE", help="where the script is written (default: slurm.sh in the work dir)")
    add("--submit", action="store_true", help="submit it")
    return parser

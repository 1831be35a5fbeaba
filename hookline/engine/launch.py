"""Start the processes of a run and see them to their end.

    launch(main, num_gpus_per_machine=8)                          # 8 GPUs of this machine
    launch(main, 0, num_procs_per_machine=2)                      # 2 processes on the CPU
    launch(main, 8, num_machines=2, machine_rank=0, dist_url="tcp://10.0.0.1:29500")

Under torchrun, srun and on clusters that describe themselves in the environment, the environment decides: see
`hookline.engine.launch_env`.
"""

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch

from hookline.engine.launch_cpus import threads_of_rank
from hookline.engine.launch_env import plan_launch
from hookline.engine.launch_herald import Herald
from hookline.engine.launch_plan import LaunchError, LaunchPlan, LaunchRequest, RendezvousError
from hookline.engine.launch_rank import RankPlace, Waits, in_group, rank_main
from hookline.engine.launch_signals import SUSPENDING, left_by_sigterm
from hookline.engine.launch_store import say, serve_store
from hookline.engine.launch_watch import RankFailedError, Watch, Worker
from hookline.signals import held_back

__all__ = ["DEFAULT_TIMEOUT", "LaunchError", "RankFailedError", "RendezvousError", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)
_logger = logging.getLogger(__name__)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int | None = None,
    machine_rank: int | None = None,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    *,
    num_procs_per_machine: int | None = None,
    launcher: str | None = None,
    rendezvous_timeout: timedelta = timedelta(minutes=5),
    eval_timeout: timedelta | None = None,
    backend: str | None = None,
    on_cpu: bool = False,
    check: Callable[[int], None] | None = None,
    early_signal: Callable[[], int | None] | None = None,
    on_failure: Callable[[Exception], object] | None = None,
) -> None:
    """Run a function on every rank: one process per GPU, or several on the CPU.

    A single process runs it here, without a process group. Else a rank that fails takes the others down within
    seconds, and its exception is raised here with its own traceback as the cause. A rank that leaves by
    `SystemExit(code)` makes this leave by it too, after the others had a minute to do the same. SIGTERM, SIGUSR1 and
    SIGUSR2 are passed on to the ranks; Ctrl-C ends all of them. No rank outlives this process.

    Args:
        main_func: The function; anything that cloudpickle takes.
        num_gpus_per_machine: GPUs of each machine, 0 for the CPU.
        num_machines: Machines; by default what the environment says, else 1.
        machine_rank: Which of them this is, from 0; by default what the environment says.
        dist_url: `tcp://HOST:PORT` of machine 0. By default, or as "auto", what the environment says, else a free port
            of this one machine.
        args: Arguments of the function.
        timeout: How long a rank may wait for another one in a collective where all do the same work.
        num_procs_per_machine: Processes of each machine on the CPU.
        launcher: "slurm", "pytorch", or "none" to ignore the environment; by default it decides.
        rendezvous_timeout: How long the ranks may take to come together.
        eval_timeout: How long a rank may wait for what another one does alone, such as evaluating and writing; by
            default as long as in any collective.
        backend: "nccl" or "gloo"; by default NCCL between GPUs and gloo between CPUs.
        on_cpu: Leave the GPUs of this machine alone, also where torchrun or srun started this process.
        check: Called with the number of processes before any is started; what it raises ends the launch.
        early_signal: Tells which signal came before this call, or during it, of those that the caller remembers instead
            of dying of them; if several did, SIGTERM, which ends the wait for the other ranks. All are passed on to the
            ranks. Those that are started here hold SIGUSR1 and SIGUSR2 back until `SignalTrigger`, or
            `hookline.signals.let_through`, takes them: else they would die of one that comes before their handlers.
        on_failure: Called, where this process is itself one of the ranks that torchrun or srun started, with what its
            function raised, and in a thread where that hangs; before the group is taken down, which may take long.
            What the function raised is raised all the same.

    Raises:
        LaunchError: If the run cannot be started as asked; names the flags or variables.
    """
    if on_cpu and num_gpus_per_machine:
        raise LaunchError(f"num_gpus_per_machine={num_gpus_per_machine} and on_cpu=True contradict each other")
    request = LaunchRequest(
        num_gpus=num_gpus_per_machine,
        num_procs=num_procs_per_machine,
        num_machines=num_machines,
        machine_rank=machine_rank,
        dist_url=dist_url,
        launcher=launcher,
        gpus_here=0 if on_cpu else torch.cuda.device_count(),
    )
    plan = plan_launch(request, os.environ)
    backend = _backend(backend, plan)
    waits = Waits(timeout, timeout if eval_timeout is None else eval_timeout, rendezvous_timeout)
    _logger.info("launch: %s", plan.reason)
    if check is not None:
        check(plan.world_size)
    if plan.how == "here":
        main_func(*args)
    elif plan.how == "join":
        _join(plan, main_func, args, backend, waits, early_signal, on_failure)
    else:
        _spawn(plan, main_func, args, backend, waits, early_signal)


def _backend(asked: str | None, plan: LaunchPlan) -> str:
    if asked not in (None, "nccl", "gloo"):
        raise LaunchError(f"backend {asked!r}: expected 'nccl', 'gloo' or None")
    if asked == "nccl" and not plan.use_gpu and plan.how != "here":
        raise LaunchError(
            "backend 'nccl' (train.env.backend) needs a GPU for each process, and these run on the CPU: ask for "
            "--num-gpus, or leave the backend out"
        )
    return asked or ("nccl" if plan.use_gpu else "gloo")


def _join(
    plan: LaunchPlan,
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
    backend: str,
    waits: Waits,
    early_signal: Callable[[], int | None] | None,
    on_failure: Callable[[Exception], object] | None,
) -> None:
    """Run as one of the processes that torchrun or srun started."""
    assert plan.address is not None
    assert plan.rank is not None
    assert plan.local_rank is not None
    store = None
    with contextlib.ExitStack() as meeting:
        meeting.enter_context(left_by_sigterm(early_signal))
        if plan.rank == 0 and not plan.by_torchrun:
            store, _ = serve_store(plan.address, waits.rendezvous_timeout, plan.run, say)
        place = _place(plan, plan.address, plan.rank, plan.local_rank, backend, waits)
        with in_group(place, by_torchrun=plan.by_torchrun, store=store, on_failure=_of_failures(on_failure)):
            meeting.close()
            main_func(*args)


def _of_failures(on_failure: Callable[[Exception], object] | None) -> Callable[[BaseException], object] | None:
    """Leave out what only ends the process, such as `SystemExit`."""
    if on_failure is None:
        return None
    return lambda error: on_failure(error) if isinstance(error, Exception) else None


def _spawn(
    plan: LaunchPlan,
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
    backend: str,
    waits: Waits,
    early_signal: Callable[[], int | None] | None,
) -> None:
    """Start this machine's processes; machine 0's starter serves the store where all ranks meet."""
    from hookline.io.pickling import pickle_for_children  # cloudpickle is needed for this alone

    work = pickle_for_children((main_func, args))
    address, store = plan.address, None
    with left_by_sigterm(early_signal):
        if plan.machine_rank == 0:
            store, address = serve_store(plan.address, waits.rendezvous_timeout, say=say)
        assert address is not None
        herald = Herald(address, store) if plan.num_machines > 1 else None
    first_rank = plan.machine_rank * plan.local_size
    places = (
        _place(plan, address, first_rank + local_rank, local_rank, backend, waits)
        for local_rank in range(plan.local_size)
    )
    held = () if early_signal is None else SUSPENDING
    Watch((_start(place, work, held) for place in places), early_signal, herald, backend).run()
    del herald, store  # served until here


def _start(place: RankPlace, work: bytes, held: tuple[int, ...]) -> Worker:
    context = multiprocessing.get_context("spawn")
    report, their_report = context.Pipe(duplex=False)
    their_lifeline, lifeline = context.Pipe(duplex=False)
    process = context.Process(
        target=rank_main, args=(place, work, their_report, their_lifeline), name=f"rank{place.rank}", daemon=False
    )
    with held_back(held):
        process.start()
    their_report.close()  # so that ours ends when the rank does
    their_lifeline.close()
    return Worker(place.rank, process, report, lifeline)


def _place(
    plan: LaunchPlan, address: tuple[str, int], rank: int, local_rank: int, backend: str, waits: Waits
) -> RankPlace:
    return RankPlace(
        rank=rank,
        world_size=plan.world_size,
        local_rank=local_rank,
        local_size=plan.local_size,
        threads=threads_of_rank(plan.local_size, os.environ, is_task=plan.how == "join" and not plan.by_torchrun),
        address=address,
        use_gpu=plan.use_gpu,
        backend=backend,
        waits=waits,
        run=plan.run,
        start_method=multiprocessing.get_start_method(allow_none=True),
    )

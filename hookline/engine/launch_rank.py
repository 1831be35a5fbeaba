"""The life of one rank: meet the others, run the main function, take the group down."""

import contextlib
import functools
import logging
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import NoReturn

import torch
import torch.distributed as dist

from hookline.distributed import set_local_place, set_timeouts
from hookline.distributed_groups import connect, disconnect
from hookline.engine.launch_attempt import attempt, torchrun_store
from hookline.engine.launch_causes import Causes, LostContactError, has_lost_contact
from hookline.engine.launch_end import end_process, note_rank_here
from hookline.engine.launch_fork import pause_before_forks
from hookline.engine.launch_meet import connecting, meet, wait_for_connected
from hookline.engine.launch_nccl import connect_gpus
from hookline.engine.launch_network import interface_towards
from hookline.engine.launch_pulse import Pulse
from hookline.engine.launch_report import Teller, from_main, note_rank
from hookline.engine.launch_signals import follow_parent, follow_starter, obey_signals
from hookline.engine.launch_store import keep_quiet, say

__all__ = ["RankPlace", "Waits", "in_group", "rank_main"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waits:
    """How long a rank waits for others.

    Attributes:
        timeout: Where all ranks do the same work: that of the process group.
        eval_timeout: For what another rank does alone.
        rendezvous_timeout: For all ranks to come.
    """

    timeout: timedelta
    eval_timeout: timedelta
    rendezvous_timeout: timedelta


@dataclass(frozen=True)
class RankPlace:
    """One rank's place in the run.

    Attributes:
        rank: Number among all processes.
        world_size: All processes.
        local_rank: Number among those of the machine.
        local_size: Processes of the machine.
        address: Host and port of the store where the ranks meet.
        use_gpu: Whether the rank has a GPU: that of its local number, or the only one that it sees.
        backend: Of the process group.
        waits: How long the rank waits for others.
        threads: Of the CPU, where OMP_NUM_THREADS does not say it.
        run: The name of the run where others may have the same address, else "".
        start_method: How the rank starts processes of its own, such as data workers; multiprocessing's in the starter.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    address: tuple[str, int]
    use_gpu: bool
    backend: str
    waits: Waits
    threads: int = 1
    run: str = ""
    start_method: str | None = None

    @property
    def means(self) -> str:
        """Where the rank computes and by what it talks to others, in which all must agree."""
        return f"{'GPUs' if self.use_gpu else 'the CPU'} by {self.backend}"


@contextlib.contextmanager
def in_group(
    place: RankPlace,
    *,
    by_torchrun: bool = False,
    store: dist.Store | None = None,
    on_failure: Callable[[BaseException], object] | None = None,
) -> Iterator[None]:
    """Be a rank of the process group while the block runs; the group is gone afterwards on any way out.

    Args:
        place: This rank's place.
        by_torchrun: Meet in torchrun's own store.
        store: The store where the ranks meet, if this process serves it.
        on_failure: Called with what the block raised, before the group is taken down, which may take long.

    Raises:
        LostContactError: If the block failed because another rank did; names that one.
        SystemExit: If the block did.
    """
    _share_machine(place)
    _introduce(place)
    if by_torchrun:
        follow_parent()
    is_broken = True
    with interface_towards(place.address):
        store, prefix = _meet(place, by_torchrun, store)
        try:
            _connect(place, store)
            set_local_place(place.local_rank, place.local_size, on_cpu=not place.use_gpu)
            with _watched(place, store, prefix, on_failure):
                yield
            is_broken = False
        except SystemExit:
            is_broken = False  # the others have time to finish what this rank takes part in
            raise
        finally:
            set_local_place(None)
            set_timeouts(None, None)
            disconnect(broken=is_broken)


def _introduce(place: RankPlace) -> None:
    device = f"cuda:{torch.cuda.current_device()}" if place.use_gpu else f"cpu, {torch.get_num_threads()} threads"
    host = socket.gethostname()
    say(f"rank {place.rank} of {place.world_size}: {host}, pid {os.getpid()}, {device}, {place.backend}")


@contextlib.contextmanager
def _watched(
    place: RankPlace, store: dist.Store, prefix: str, on_failure: Callable[[BaseException], object] | None
) -> Iterator[None]:
    """Let the ranks know of each other's ends, failures and silence while the block runs; GPUs are connected before."""
    here, timeout = (place.address, place.rank, place.world_size), place.waits.timeout
    causes = Causes(store, *here, timeout)
    give_up = functools.partial(_give_up, place, on_failure)
    pulse = Pulse(*here, timeout.total_seconds(), give_up, prefix)
    with pulse, _told(place.rank, causes, on_failure or (lambda error: None)), causes.watched(on_failure):
        if place.backend == "nccl":
            connect_gpus(place.rank, place.waits.rendezvous_timeout, give_up)
        yield


def _meet(place: RankPlace, by_torchrun: bool, store: dist.Store | None) -> tuple[dist.Store, str]:
    """Wait for all ranks; return the run's store, and the prefix of its keys in the one at the address."""
    within = place.waits.rendezvous_timeout
    speak = say if place.local_rank == 0 else keep_quiet  # else each rank of a machine would say the same
    deadline = time.monotonic() + within.total_seconds()
    here = (place.address, place.rank, place.world_size)
    come = functools.partial(meet, *here, place.means, within, say=speak, deadline=deadline)
    if not by_torchrun:
        return come(store, place.run), ""
    of_all = torchrun_store(place.address, within)
    with attempt(of_all, *here, within, deadline, speak) as prefix:
        return come(dist.PrefixStore(prefix, of_all)), prefix


def _connect(place: RankPlace, store: dist.Store) -> None:
    """Make the group and the connections for all waits now, in the time for coming together.

    Raises:
        RendezvousError: If the machines cannot reach each other.
    """
    within = place.waits.rendezvous_timeout
    pause_before_forks()
    note_rank_here()
    with connecting(place.address, place.world_size, within):
        dist.init_process_group(
            place.backend, store=store, rank=place.rank, world_size=place.world_size, timeout=within
        )
        set_timeouts(place.waits.timeout, place.waits.eval_timeout)
        connect(within)
    wait_for_connected(store, place.address, place.rank, place.world_size, within)


@contextlib.contextmanager
def _told(rank: int, causes: Causes, on_failure: Callable[[BaseException], object]) -> Iterator[None]:
    """Let the other ranks and the starter know of a failure; one that another rank caused is explained by that."""
    try:
        yield
    except BaseException as error:
        if has_lost_contact(error):
            explained = causes.explain(error)
            explained.__cause__ = where = error.with_traceback(from_main(error))  # where this rank was waiting
            note_rank(explained, rank)
            on_failure(explained)
            raise explained from where
        if isinstance(error, SystemExit) and not error.code:
            causes.leave()
        else:
            causes.tell(error)
            note_rank(error, rank)
            on_failure(error)
        raise
    else:
        causes.leave()


def _give_up(place: RankPlace, on_failure: Callable[[BaseException], object] | None, silence: str) -> NoReturn:
    """End this process from a thread: the main one waits for somebody who will not come."""
    error = LostContactError(f"rank {place.rank} {silence}")
    _logger.info("The run ended because contact with other ranks was lost: %s", error)
    if on_failure is not None:
        on_failure(error)
    else:  # nobody else shows it
        sys.stderr.write(f"error: {error}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _share_machine(place: RankPlace) -> None:
    """Take this rank's GPU and its part of the CPUs."""
    if place.use_gpu:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(place.threads)


def rank_main(place: RankPlace, work: bytes, report: Connection, lifeline: Connection) -> None:
    """Be the main function of a spawned process.

    Args:
        place: This rank's place.
        work: The main function and its arguments, by cloudpickle.
        report: Where the ending is told.
        lifeline: Ends when the starter does, however that happens.
    """
    follow_starter(lifeline)
    obey_signals()
    # in a spawned process it is "spawn": each data worker would take seconds to import torch, for every evaluation
    multiprocessing.set_start_method(place.start_method, force=True)
    teller = Teller(place.rank, report)
    try:
        _run(place, work, teller)
    except BaseException as error:
        teller.tell(error)
    report.close()
    end_process(teller.code)


def _run(place: RankPlace, work: bytes, teller: Teller) -> None:
    import cloudpickle

    main_func, args = cloudpickle.loads(work)
    with in_group(place, on_failure=teller.tell):
        main_func(*args)

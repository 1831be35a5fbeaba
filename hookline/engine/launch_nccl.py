"""NCCL's connections, made when the ranks come together.

NCCL connects at the first collective, in C code that waits for as long as the others do not answer. A network that does
not lead to them would show half an hour later, as an abort without a word of it.
"""

import threading
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from hookline.engine.launch_causes import has_lost_contact
from hookline.engine.launch_plan import RendezvousError
from hookline.engine.launch_words import first_lines

__all__ = ["connect_gpus"]

_HINT = (
    "NCCL_SOCKET_IFNAME chooses the network, NCCL_IB_DISABLE=1 does without InfiniBand, and NCCL_DEBUG=INFO shows what "
    "NCCL tries"
)
_NO_NETWORK = "no socket interface"


def connect_gpus(rank: int, within: timedelta, give_up: Callable[[str], object]) -> None:
    """Let all ranks reduce four bytes by NCCL, in the time for coming together.

    Args:
        rank: This rank.
        within: How long it may take.
        give_up: Ends this process, from a thread; called with what a message says behind the rank.

    Raises:
        RendezvousError: If NCCL says by itself that it does not reach the others.
        DistBackendError: If something else is wrong, such as a GPU that two ranks use.
    """
    late = f"could not connect to the other ranks by NCCL within {within.total_seconds():g} s, though all came; {_HINT}"
    timer = threading.Timer(within.total_seconds(), give_up, (late,))
    timer.daemon = True
    timer.start()
    try:
        _reduce()
    except dist.DistBackendError as error:
        if not has_lost_contact(error) and _NO_NETWORK not in str(error).lower():
            raise
        raise RendezvousError(
            f"rank {rank} could not connect to the other ranks by NCCL, though all came; {_HINT} ({first_lines(error)})"
        ) from error
    finally:
        timer.cancel()


def _reduce() -> None:
    dist.all_reduce(torch.ones(1, device="cuda"))
    torch.cuda.synchronize()

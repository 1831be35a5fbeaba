"""What a starter tells the other machines of the ranks that it watches.

A rank that fails says why. One that is killed cannot: its starter, which knows first, says it. What ranks say when
their starter ends them is a consequence, which nobody should take for the cause.
"""

import json
import socket
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from hookline.engine.launch_causes import CAUSE, ENDED, ask_in_time
from hookline.engine.launch_network import host_towards

__all__ = ["Herald"]

_ANSWER_S = 3.0


class Herald:
    """Speaks for a starter in the store where the ranks met; where that is out of reach, nobody listens.

    Args:
        address: Its host and port.
        store: The store, if this starter serves it.
    """

    def __init__(self, address: tuple[str, int], store: dist.Store | None = None) -> None:
        self._address = address
        self._store = store

    def tell_death(self, rank: int, text: str) -> None:
        """Tell why a rank ended that could not; only the first failure of the run is remembered.

        Args:
            rank: The rank.
            text: What became of it.
        """
        cause = json.dumps({"rank": rank, "host": host_towards(self._address), "text": text})
        ask_in_time(lambda: self._open().compare_set(CAUSE, "", cause))

    def tell_ending(self, ranks: Iterable[int]) -> None:
        """Tell ranks, before they are ended, that what they say from now on is no cause.

        Args:
            ranks: The ranks.
        """
        keys = [ENDED.format(rank) for rank in ranks]
        ask_in_time(lambda: self._open().multi_set(keys, ["1"] * len(keys)))

    def _open(self) -> Any:  # torch does not type all that a store can
        if self._store is None:
            socket.create_connection(self._address, timeout=_ANSWER_S).close()  # torch's failure is a page of C++
            self._store = dist.TCPStore(*self._address, is_master=False, timeout=timedelta(seconds=_ANSWER_S))
        return self._store

"""What a starter tells the other machines of the ranks that it watches, and hears from them.

A rank that fails says why. One that is killed cannot: its starter, which knows first, says it. What ranks say when
their starter ends them is a consequence, which nobody should take for the cause.
"""

import json
import socket
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from hookline.engine.launch_causes import CAUSE, ENDED, ask_in_time
from hookline.engine.launch_network import host_towards

__all__ = ["Herald"]

_ANSWER_S = 3.0


class Herald:
    """Speaks and listens for a starter in the store where the ranks met; where it is out of reach, nobody does.

    A store that did not answer once is not asked again: the ranks here wait to be ended.

    Args:
        address: Its host and port.
        store: The store, if this starter serves it.
    """

    def __init__(self, address: tuple[str, int], store: dist.Store | None = None) -> None:
        self._address = address
        self._host = host_towards(address)  # now: once the network is cut, a name takes long to be looked up
        self._store = store
        self._is_silent = False
        self._cause: dict[str, Any] = {}

    def tell(self, death: tuple[int, str] | None, ended: Iterable[int] = ()) -> None:
        """Tell why a rank ended that could not, and whose words from now on are no cause.

        Args:
            death: The rank, and what became of it; only the first failure of the run is remembered.
            ended: Ranks that will be ended because of it.
        """
        keys = [ENDED.format(rank) for rank in ended]

        def tell() -> dict[str, Any]:
            store = self._open()
            if death is not None:
                store.compare_set(CAUSE, "", json.dumps({"rank": death[0], "host": self._host, "text": death[1]}))
            if keys:
                store.multi_set(keys, ["1"] * len(keys))
            return self._read(store)

        self._cause = self._ask(tell) or self._cause  # read at once: the store may go before it is needed

    def cause(self) -> dict[str, Any]:
        """Return what the first rank of the run to fail has told: its rank, host and text; empty if nothing."""
        self._cause = self._cause or self._ask(lambda: self._read(self._open())) or {}
        return self._cause

    @staticmethod
    def _read(store: dist.Store) -> dict[str, Any]:
        return json.loads(store.get(CAUSE)) if store.check([CAUSE]) else {}

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask unless the store was silent before; the answer must not be None."""
        answer = None if self._is_silent else ask_in_time(question)
        self._is_silent = answer is None
        return answer

    def _open(self) -> Any:  # torch does not type all that a store can
        if self._store is None:
            socket.create_connection(self._address, timeout=_ANSWER_S).close()  # torch's failure is a page of C++
            self._store = dist.TCPStore(*self._address, is_master=False, timeout=timedelta(seconds=_ANSWER_S))
        return self._store

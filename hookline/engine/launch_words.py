"""How messages about the end of a run name ranks, and what they show of torch's errors."""

__all__ = ["all_lost", "first_lines", "listed"]

_SHOWN_RANKS = 8
_SHOWN_LINES = 4


def first_lines(error: BaseException) -> str:
    """Return what an error of torch says, in one line, without the stack of C++ frames that may follow.

    Args:
        error: What was raised.
    """
    return " ".join(str(error).split("\n")[:_SHOWN_LINES])


def all_lost(error: BaseException, waited: tuple[float, str] | None) -> str:
    """Say behind a rank's number that all ranks lost contact, and none told why.

    Args:
        error: What this rank saw of it.
        waited: For how many seconds and by which setting, where it waited.
    """
    if waited is not None:
        return (
            f"waited {waited[0]:g} s ({waited[1]}) in a collective, and so did all others, in another one: the ranks "
            "did different work, such as a part of the model that only some of them ran (the log of each rank shows "
            "where it waited), or some of their machines cannot reach each other"
        )
    return (
        "lost contact with the others, and each of them says so, too: none has told of a failure of its own. Here it "
        f"was: {type(error).__name__}: {first_lines(error)}"
    )


def listed(ranks: list[tuple[int, str]]) -> str:
    """Name ranks and their hosts, the first ones of many.

    Args:
        ranks: Their numbers and hosts.
    """
    shown = ", ".join(f"{rank} on {host}" for rank, host in ranks[:_SHOWN_RANKS])
    return f"rank(s) {shown}" + ("" if len(ranks) <= _SHOWN_RANKS else f" and {len(ranks) - _SHOWN_RANKS} more")

"""Functions on their way to processes that this same Python starts."""

import io
import marshal
from collections import ChainMap
from types import CodeType
from typing import Any, ClassVar

import cloudpickle

__all__ = ["pickle_for_children"]


def pickle_for_children(obj: Any) -> bytes:
    """Pickle anything, also lambdas, closures and functions of the main program, with the names of their files.

    cloudpickle alone drops those names from 3.1.2 on, and with them the source lines in tracebacks.

    Args:
        obj: anything that cloudpickle takes.

    Returns:
        What ``pickle.loads`` reads, in a Python of the same version.
    """
    buffer = io.BytesIO()
    _Pickler(buffer).dump(obj)
    return buffer.getvalue()


def _reduce_code(code: CodeType) -> tuple[Any, tuple[bytes]]:
    return marshal.loads, (marshal.dumps(code),)


class _Pickler(cloudpickle.Pickler):
    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

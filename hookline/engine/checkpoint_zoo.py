"""Read the pickled files of Detectron2's model zoo: arrays and plain values, nothing else.

A pickle is a program. This reader runs only the few calls that build numpy arrays; every other name in the file ends
the reading before it is looked up.
"""

import collections
import os
import pickle
from typing import Any

import numpy as np
import torch

from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError

__all__ = ["read_zoo_pickle"]


def read_zoo_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of numpy arrays and plain values; the arrays become tensors.

    Caffe2's layout (`{"blobs": {...}}`) is turned into the zoo's: the momentum is left out.

    Args:
        path: A local file. Pickles of Python 2 and of numpy 1 and 2 are read.

    Returns:
        The content with CPU tensors in place of arrays, usually `{"model": {name: tensor}, ...}`.

    Raises:
        CheckpointError: If the file is no pickle or is damaged.
        UnsafeCheckpointError: If it refers to anything but arrays and plain values.
    """
    try:
        with open(path, "rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(f"{path} is not a readable pickle: {type(error).__name__}: {error}") from error
    return _with_tensors(_zoo_layout(content), os.fspath(path), "")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, by which old protocols store bytes.

    Raises:
        UnsafeCheckpointError: If another codec is named; it is not looked up.
    """
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeCheckpointError(f"stores bytes with the codec {encoding!r}, expected latin1; nothing was executed")
    return text.encode("latin1")


# numpy's own makers of arrays and scalars; the module that holds them is numpy.core or numpy._core
_array_maker: Any = np.empty(0).__reduce__()[0]
_buffer_maker: Any = np.empty(1).__reduce_ex__(5)[0]
_scalar_maker: Any = np.float32(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode_latin1,
    **{
        (f"numpy.{core}.{module}", name): target
        for core in ("core", "_core")
        for module, name, target in (
            ("multiarray", "_reconstruct", _array_maker),
            ("multiarray", "scalar", _scalar_maker),
            ("numeric", "_frombuffer", _buffer_maker),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UnsafeCheckpointError(
                f"refers to {module}.{name}; nothing of it was executed and it is not loaded: pickled files may hold "
                "numpy arrays and plain values only"
            ) from None


def _zoo_layout(content: Any) -> Any:
    if not isinstance(content, dict) or "model" in content:
        return content
    blobs = content.get("blobs", content)
    if not isinstance(blobs, dict):
        return content
    model = {name: value for name, value in blobs.items() if not str(name).endswith("_momentum")}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def _with_tensors(value: Any, path: str, key: str) -> Any:
    if isinstance(value, np.ndarray):
        return _as_tensor(value, path, key)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {k: _with_tensors(v, path, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_tensors(v, path, f"{key}[{i}]") for i, v in enumerate(value))
    return value


def _as_tensor(array: np.ndarray, path: str, key: str) -> torch.Tensor:
    try:
        # a copy: the array may be read-only, byte-swapped or run backwards
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError as error:
        raise CheckpointError(f"{key} in {path} is an array of {array.dtype}, expected numbers") from error

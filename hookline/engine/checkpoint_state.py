"""What goes into a checkpoint: tensors and plain Python values, checked by name and moved to the CPU."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch

from hookline.engine.checkpoint_errors import CheckpointError

__all__ = ["HostBuffers", "plain_tensor", "plain_tree", "tensor_bytes", "to_host"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_ALIGNMENT = 64


def plain_tree(value: Any, path: str = "", take: Callable[[torch.Tensor, str], torch.Tensor] | None = None) -> Any:
    """Copy nested containers and check that they hold nothing but tensors and plain Python values.

    Subclasses do not count as plain: a `numpy.float64` is a float, but a file that holds one does not load with
    `weights_only=True`.

    Args:
        value: dicts, lists and tuples of tensors, numbers, strings, bytes and None.
        path: Key path of the value, for messages.
        take: Called with each tensor and its key path, gives what stands in the copy. By default plain tensors are
            taken as they are and others refused.

    Returns:
        The same nesting of new containers; the tensors are detached but still the same memory.

    Raises:
        CheckpointError: If anything else is found; the message names its key path and class.
    """
    if isinstance(value, torch.Tensor):
        return plain_tensor(value, path) if take is None else take(value, path)
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (dict, OrderedDict):
        items = {
            _plain_key(key, path): plain_tree(item, f"{path}.{key}".lstrip("."), take) for key, item in value.items()
        }
        return _same_kind(value, items)
    if kind in (list, tuple):
        return kind(plain_tree(item, f"{path}[{index}]", take) for index, item in enumerate(value))
    raise CheckpointError(
        f"{path or 'the state'} is a {kind.__module__}.{kind.__qualname__} and cannot be saved: a checkpoint holds "
        f"tensors and plain Python values only (dict, list, tuple, str, bytes, int, float, bool, None){_advice(value)}"
    )


def tensor_bytes(tree: Any) -> int:
    """Count the bytes of all tensors in nested containers, memory that several share once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(tree) if _is_dense(t)}
    return sum(storages.values()) + sum(t.nbytes for t in _tensors(tree) if not _is_dense(t))


def to_host(tree: Any) -> Any:
    """Move the tensors of nested containers to the CPU; those that are there already are not copied.

    What is on the meta device, as a sign of something that lies elsewhere, stays there. A view of a larger tensor is
    cloned, since a file would hold all of the larger one. Tensors that share their memory share it afterwards.
    """

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type not in ("cpu", "meta"):
            return tensor.cpu()
        is_part = _is_dense(tensor) and tensor.untyped_storage().nbytes() > tensor.nbytes
        return tensor.clone() if is_part else tensor

    return _replace_tensors(tree, _once_per_memory(move))


class HostBuffers:
    """Copies of a state in CPU memory that is kept from one copy to the next.

    The memory is one block, pinned where the state lives on a GPU. Keeping it makes a copy several times cheaper,
    because fresh memory costs a page fault per 4 KiB.
    """

    def __init__(self) -> None:
        self._block: torch.Tensor | None = None

    def copy(self, tree: Any) -> Any:
        """Copy all tensors of nested containers; the result is valid until the next call.

        Args:
            tree: Nested containers as `plain_tree` gives them.

        Returns:
            The same nesting with CPU tensors that share no memory with the given ones.
        """
        tensors = [tensor for tensor in _tensors(tree) if _is_dense(tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        self._reserve(sum(_aligned(tensor.nbytes) for tensor in tensors), pinned=on_gpu)
        end = 0

        def place(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal end
            if not _is_dense(tensor):
                return tensor.cpu().clone()
            start, end = end, end + _aligned(tensor.nbytes)
            return self._slot(tensor, start).copy_(tensor, non_blocking=True)

        copied = _replace_tensors(tree, _once_per_memory(place))
        if on_gpu:
            torch.cuda.synchronize()
        return copied

    def _reserve(self, size: int, pinned: bool) -> None:
        if self._block is None or self._block.numel() < size or self._block.is_pinned() != pinned:
            self._block = None  # given back before the larger one is taken
            self._block = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)

    def _slot(self, tensor: torch.Tensor, start: int) -> torch.Tensor:
        """A tensor of the same layout over part of the block, with a storage of its own, as a file wants it."""
        if tensor.numel() == 0:
            return torch.empty_like(tensor, device="cpu")
        assert self._block is not None
        part = torch.frombuffer(self._block.numpy(), dtype=torch.uint8, count=tensor.nbytes, offset=start)
        return part.view(tensor.dtype).as_strided(tensor.size(), _dense_strides(tensor))


def plain_tensor(tensor: torch.Tensor, path: str) -> torch.Tensor:
    """Detach a tensor.

    Args:
        tensor: A plain one, with values.
        path: Its key path, for messages.

    Raises:
        CheckpointError: If it is of a subclass or has no values.
    """
    tensor = tensor.detach()
    if type(tensor) is not torch.Tensor:
        kind = type(tensor)
        raise CheckpointError(
            f"{path} is a {kind.__module__}.{kind.__qualname__} and cannot be saved: give its full tensor, which loads "
            "anywhere"
        )
    if tensor.is_meta:
        raise CheckpointError(f"{path} is on the meta device and has no values to save: materialise the model first")
    return tensor


def _plain_key(key: Any, path: str) -> Any:
    if type(key) not in (str, int, float, bool, type(None)):
        raise CheckpointError(f"{path or 'the state'} has the key {key!r} of {type(key)}: expected str or int")
    return key


def _advice(value: Any) -> str:
    if hasattr(value, "tolist"):
        return "; .item() or .tolist() makes it plain, torch.as_tensor(...) a tensor"
    if isinstance(value, (bool, int, float, str)):
        return f"; {value!r} converted by int(), float() or str() is plain"
    if isinstance(value, (set, frozenset)):
        return "; sorted(...) makes it a list"
    return ""


def _same_kind(like: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """Make a module's state dict again of its items: it carries the versions of the layers in an attribute."""
    if type(like) is dict:
        return items
    result = OrderedDict(items)
    versions = getattr(like, "_metadata", None)
    if versions is not None:
        result._metadata = OrderedDict((name, dict(value)) for name, value in versions.items())  # type: ignore[attr-defined]
    return result


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)
    elif type(tree) in (list, tuple):
        for item in tree:
            yield from _tensors(item)


def _replace_tensors(tree: Any, replace: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        return replace(tree)
    if isinstance(tree, dict):
        return _same_kind(tree, {key: _replace_tensors(item, replace) for key, item in tree.items()})
    if type(tree) in (list, tuple):
        return type(tree)(_replace_tensors(item, replace) for item in tree)
    return tree


def _once_per_memory(replace: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give tensors that are the same memory, such as tied weights, the same replacement."""
    seen: dict[Any, torch.Tensor] = {}

    def replace_once(tensor: torch.Tensor) -> torch.Tensor:
        if not _is_dense(tensor) or tensor.numel() == 0:
            return replace(tensor)
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.size(), tensor.stride())
        if key not in seen:
            seen[key] = replace(tensor)
        return seen[key]

    return replace_once


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _dense_strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides of a copy without gaps that keeps the order of axes (channels last, transposed)."""
    return torch.empty_like(tensor, device="meta").stride()

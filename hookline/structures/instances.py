"""What is known of the objects of one image: fields of one length under one roof."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class Instances:
    """The objects of one image; every field holds one entry per object.

    A field is a tensor, ``Boxes``, masks, ``Keypoints``, a list, or anything with a length and indexing. Fields are
    attributes::

        instances = Instances((480, 640), gt_classes=torch.tensor([0, 2]))
        instances.gt_boxes = Boxes([[0, 0, 10, 10], [5, 5, 9, 9]])
        large = instances[instances.gt_boxes.area() > 50]

    Args:
        image_size: (height, width) of the image in pixels.
        kwargs: the first fields.

    Raises:
        ValueError: the fields have different lengths.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # asked only for what is no ordinary attribute; copy and pickle ask before _fields exists
        if name != "_fields" and name in self._fields:
            return self._fields[name]
        raise AttributeError(f"Instances has no field {name!r}" + ("" if name.startswith("_") else self._hint(name)))

    def _hint(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._fields, n=1)
        return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(self._fields) or 'none'}"

    def set(self, name: str, value: Any) -> None:
        """Set the field ``name``.

        Args:
            name: the field's name.
            value: one entry per object.

        Raises:
            TypeError: the value has no length.
            ValueError: the other fields have another length.
        """
        if not hasattr(value, "__len__"):
            raise TypeError(f"field {name!r} must hold one entry per object, got {type(value).__name__}")
        # the fields agree with each other, so one comparison does
        other = next((field for field in self._fields if field != name), None)
        if other is not None and len(value) != len(self._fields[other]):
            count = len(self._fields[other])
            raise ValueError(f"field {name!r} has {len(value)} entries, but {other!r} of these Instances has {count}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Tell whether the field ``name`` is set."""
        return name in self._fields

    def get(self, name: str) -> Any:
        """Return the field ``name``.

        Args:
            name: the field's name.

        Raises:
            KeyError: there is no such field.
        """
        if name not in self._fields:
            raise KeyError(f"Instances has no field {name!r}{self._hint(name)}")
        return self._fields[name]

    def remove(self, name: str) -> None:
        """Remove the field ``name``; a ``KeyError`` where there is none."""
        self.get(name)
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return the fields by name; changing the dictionary changes the instances."""
        return self._fields

    def _with(self, fields: dict[str, Any]) -> Instances:
        """Return instances of the same image with other fields, whose lengths are known to agree."""
        result = Instances(self._image_size)
        result._fields.update(fields)
        return result

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Return the instances with every field that has a ``to`` moved by ``field.to(*args, **kwargs)``."""
        return self._with({name: v.to(*args, **kwargs) if hasattr(v, "to") else v for name, v in self._fields.items()})

    def __getitem__(self, item: int | slice | Tensor | list) -> Instances:
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"object {item} of {len(self)} Instances")
            item = slice(item, item + 1 or None)
        return self._with({name: _select(value, item) for name, value in self._fields.items()})

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length")

    def __iter__(self) -> Iterator[Instances]:
        raise NotImplementedError("Instances cannot be iterated: index them, or iterate over a field")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """Join the instances of one image.

        Args:
            instance_lists: at least one; all of one image size and with the same fields, each of a type that can be
                joined: tensors, lists, and what has a ``cat``. Others are refused.

        Returns:
            New instances with the entries in order.
        """
        _check_joinable(instance_lists)
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        return first._with({name: _join(name, [one.get(name) for one in instance_lists]) for name in first._fields})

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        count = f"num_instances={len(self)}, " if self._fields else ""
        return f"Instances({count}image_height={height}, image_width={width}, fields=[{fields}])"

    __str__ = __repr__


def _select(value: Any, item: Any) -> Any:
    # plain lists and tuples understand masks and lists of indices too
    if not isinstance(value, (list, tuple)) or isinstance(item, slice):
        return value[item]
    indices = torch.as_tensor(item)
    if indices.dtype == torch.bool:
        if len(indices) != len(value):
            raise IndexError(f"a mask of {len(indices)} entries for a field of {len(value)}")
        indices = indices.nonzero()[:, 0]
    return type(value)(value[i] for i in indices.tolist())


def _check_joinable(instance_lists: Sequence[Instances]) -> None:
    if not instance_lists:
        raise ValueError("Instances.cat needs at least one Instances")
    for one in instance_lists:
        if not isinstance(one, Instances):
            raise TypeError(f"Instances.cat joins Instances, got {type(one).__name__}")
    first = instance_lists[0]
    for one in instance_lists[1:]:
        if one.image_size != first.image_size:
            raise ValueError(f"cannot join Instances of images of sizes {first.image_size} and {one.image_size}")
        if one._fields.keys() != first._fields.keys():
            different = sorted(one._fields.keys() ^ first._fields.keys())
            raise ValueError(f"cannot join Instances where only some have the field {', '.join(different)}")


def _join(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values, dim=0)
    if isinstance(first, (list, tuple)):
        return type(first)(itertools.chain(*values))
    if hasattr(type(first), "cat"):
        return type(first).cat(values)
    raise TypeError(f"cannot join the field {name!r}: {type(first).__name__} has no cat")

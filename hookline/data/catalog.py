"""Names for data sets, and what is known about them.

The catalog is a convenience at the edge: a recipe says ``"balloon_train"`` and the builders look it up here. Nothing
below the builders reads it; evaluators and drawing are handed the records and the metadata.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Record = dict[str, Any]
"""One image and its annotations as plain values, Detectron2's standard form."""


class UnknownDatasetError(KeyError):
    """A data set was asked for by a name that nobody registered."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class _DatasetCatalog:
    """A map from a name to the function that returns the records."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[], list[Record]]] = {}

    def register(self, name: str, func: Callable[[], list[Record]]) -> None:
        """Give a data set a name; the function runs at every ``get``, not now.

        Args:
            name: how recipes refer to the data set.
            func: returns the records; the same ones in the same order at every call.

        Raises:
            TypeError: if ``func`` cannot be called.
            ValueError: if the name is taken.
        """
        if not callable(func):
            raise TypeError(f"register({name!r}) needs a function that returns the records, got {type(func).__name__}")
        if name in self._loaders:
            raise ValueError(f"the data set name {name!r} is registered already; remove() it first to replace it")
        self._loaders[name] = func

    def get(self, name: str) -> list[Record]:
        """Load the records of a registered data set.

        Raises:
            UnknownDatasetError: if the name is not registered; the message proposes near ones.
        """
        if name not in self._loaders:
            raise UnknownDatasetError(f"data set {name!r} is not registered{nearest(name, self._loaders)}")
        return self._loaders[name]()

    def list(self) -> "list[str]":
        """Return the registered names in the order of their registration."""
        return [*self._loaders]

    def remove(self, name: str) -> None:
        """Forget a name.

        Raises:
            UnknownDatasetError: if the name is not registered.
        """
        if self._loaders.pop(name, None) is None:
            raise UnknownDatasetError(f"data set {name!r} is not registered{nearest(name, self._loaders)}")

    def __contains__(self, name: object) -> bool:
        return name in self._loaders

    def __iter__(self) -> Iterator[str]:
        return iter([*self._loaders])

    def __len__(self) -> int:
        return len(self._loaders)


class Metadata:
    """What is known about a data set, as attributes; a value once set does not change by accident.

    Usual attributes: ``thing_classes``, ``thing_colors``, ``thing_dataset_id_to_contiguous_id``, ``json_file``,
    ``image_root``, ``evaluator_type``, ``keypoint_names``, ``keypoint_flip_map``, ``keypoint_connection_rules``.

    Args:
        name: the data set's name, for messages.
        attributes: first values.
    """

    name: str

    def __init__(self, name: str = "", **attributes: Any) -> None:
        self.__dict__["name"] = name
        self.set(**attributes)

    def __getattr__(self, key: str) -> Any:
        # Called for missing attributes only. Copying and pickling ask a bare object for dunder names: keep that cheap.
        if key.startswith("__"):
            raise AttributeError(key)
        known = [k for k in self.__dict__ if k != "name"]
        raise AttributeError(
            f"metadata of data set {self.__dict__.get('name', '')!r} has no {key!r}{nearest(key, known)}; "
            "some values are filled in when the data set is loaded"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.__dict__ and not _same(self.__dict__[key], value):
            raise ValueError(
                f"metadata {key!r} of data set {self.name!r} is {_short(self.__dict__[key])} and would silently become "
                f"{_short(value)}; use replace() if that is meant"
            )
        self.__dict__[key] = value

    def set(self, **attributes: Any) -> "Metadata":
        """Set attributes that are new or have the same value already; returns itself."""
        for key, value in attributes.items():
            setattr(self, key, value)
        return self

    def replace(self, **attributes: Any) -> "Metadata":
        """Set attributes whatever they were before; returns itself."""
        self.__dict__.update(attributes)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or the default where it is not set."""
        return self.__dict__.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, the name included, in a new dict."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"Metadata({', '.join(f'{k}={_short(v)}' for k, v in self.__dict__.items())})"


class _MetadataCatalog:
    """A map from a data set's name to its metadata, made at the first ``get``."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        """Return the one metadata object of this name; an empty one if there was none."""
        if name not in self._entries:
            self._entries[name] = Metadata(name)
        return self._entries[name]

    def list(self) -> "list[str]":
        """Return the names that have metadata."""
        return [*self._entries]

    def remove(self, name: str) -> None:
        """Forget the metadata of a name.

        Raises:
            UnknownDatasetError: if there is none.
        """
        if self._entries.pop(name, None) is None:
            raise UnknownDatasetError(f"no metadata under the name {name!r}{nearest(name, self._entries)}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter([*self._entries])


def nearest(name: object, known: Iterable[object]) -> str:
    """Return a clause for an error message that proposes the nearest known names, or lists them all if they are few."""
    names = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), names, n=3)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    if not names:
        return "; there are none"
    return "; known: " + ", ".join(repr(n) for n in names[:20]) + (", ..." if len(names) > 20 else "")


def _same(a: Any, b: Any) -> bool:
    """Equality that also holds for arrays."""
    equal = a == b
    if hasattr(equal, "all"):
        return bool(equal.all())
    return bool(equal)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()

"""The index of a packed folder: a nested dict of names, in a pickle that nobody may misuse.

A pickle is a program. This one is run only after each of its instructions was recognised as one that the format
needs: making empty ``OrderedDict``, text and whole numbers, and putting them into each other. So it can call nothing
else, take no more memory than a small multiple of its size, and not loop.
"""

import io
import pickle
import re
from collections import OrderedDict
from functools import cache
from typing import Any

from hookline.io.ffrecord.errors import FFRecordError

__all__ = ["MAGIC", "Tree", "decode_index", "encode_index"]

MAGIC = b"piouhjgbr"
Tree = dict[str, Any]  # name of a file: number of its sample; name of a folder: its Tree

_PROTOCOL = 4  # the default of Python 3.8 to 3.13, hence that of the original
_MAX_NAME = 4096  # bytes of one name
_AT_ONCE = 1000  # instructions that one match of the pattern takes, so that its memory stays bounded


def encode_index(tree: Tree) -> bytes:
    """Return the bytes of an index.

    Args:
        tree: what the folder holds.

    Raises:
        FFRecordError: if folders are nested too deeply for Python's pickle.
    """
    try:
        return MAGIC + pickle.dumps(_ordered(tree), protocol=_PROTOCOL)
    except RecursionError:
        raise FFRecordError("the folders are nested too deeply to be packed") from None


def decode_index(data: bytes, num_files: int, name: str) -> Tree:
    """Read an index.

    Args:
        data: the whole sample.
        num_files: numbers in it must be below this.
        name: of the file, for messages.

    Raises:
        FFRecordError: if it is no index, or holds anything that an index does not: names the byte or the path.
    """
    if not data.startswith(MAGIC) or len(data) == len(MAGIC):
        raise FFRecordError(f"{name}: is not a packed folder: its last sample is no index")
    content = data[len(MAGIC) :]
    _screen(content, name)
    try:
        tree = _Unpickler(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, TypeError, ValueError, LookupError, EOFError, AttributeError, MemoryError) as error:
        raise FFRecordError(f"{name}: the index is damaged: {error}") from error
    _check_tree(tree, num_files, name)
    return tree


def _ordered(tree: Tree) -> OrderedDict[str, Any]:
    return OrderedDict((name, _ordered(entry) if isinstance(entry, dict) else entry) for name, entry in tree.items())


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict  # keeps the order as well, and is filled and gone through several times as fast
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which an index does not need")


@cache
def _instructions() -> re.Pattern[bytes]:
    """Compile the pattern of what an index is made of, but for what has to be counted."""
    rows = []
    for high in range(0, 256, 16):  # two levels, since alternatives are tried one by one
        lengths = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(high, high + 16))
        rows.append(
            b"(?=[" + re.escape(bytes([high])) + b"-" + re.escape(bytes([high + 15])) + b"])(?:" + lengths + b")"
        )
    number = rb"K.|M..|J.{4}|\x8a\x05.{5}"
    text = rb"\x8c(?:" + b"|".join(rows) + rb")\x94?(?:" + number + rb")?"  # a name, kept, and its number
    others = rb"h.|j.{4}|q.|\)R|[\x94\x93(su]|" + number + rb"|\x95.{8}|ccollections\nOrderedDict\n"
    return re.compile(rb"(?:" + text + b"|" + others + rb"){1,%d}" % _AT_ONCE, re.DOTALL)


def _screen(content: bytes, name: str) -> None:
    """Refuse every instruction that an index does not need, before any is carried out.

    Raises:
        FFRecordError: naming the byte.
    """
    if content[:1] != b"\x80" or content[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise FFRecordError(f"{name}: the index is no pickle of protocol 2 to 5")
    instructions = _instructions()
    position, end = 2, len(content)
    while position < end:
        found = instructions.match(content, position)
        if found is not None:
            position = found.end()
            continue
        instruction, argument = content[position], int.from_bytes(content[position + 1 : position + 5], "little")
        if instruction == ord(".") and position == end - 1:
            return
        if instruction == ord("X") and argument <= min(_MAX_NAME, end - position - 5):  # a name with a long length
            position += 5 + argument
        elif instruction == ord("r") and argument <= end:  # keep under a number: memory is taken up to that number
            position += 5
        else:
            raise FFRecordError(
                f"{name}: byte {len(MAGIC) + position} of the index is the instruction {bytes([instruction])!r}, which "
                "an index does not need: it is damaged, or made to do harm"
            )
    raise FFRecordError(f"{name}: the index ends half way")


def _check_tree(root: Any, num_files: int, name: str) -> None:
    """Refuse anything but a tree of names and numbers.

    Raises:
        FFRecordError: naming the path in it.
    """
    if type(root) is not dict:
        raise FFRecordError(f"{name}: the index is a {type(root).__name__}, not a folder")
    waiting, seen = [("", root)], {id(root)}
    while waiting:
        place, folder = waiting.pop()
        _check_names(folder, place, name)
        kinds = set(map(type, folder.values()))
        if not kinds <= {int, dict}:
            raise FFRecordError(f"{name}: the index has entries under {place!r} that are neither file nor folder")
        numbers = folder.values() if kinds == {int} else [v for v in folder.values() if type(v) is int]
        if numbers and not (min(numbers) >= 0 and max(numbers) < num_files):
            raise FFRecordError(f"{name}: the index has samples under {place!r} that are not in 0..{num_files - 1}")
        if dict not in kinds:
            continue
        for key, value in folder.items():
            if type(value) is dict:
                if id(value) in seen:
                    raise FFRecordError(f"{name}: the index has the folder {place + key!r} twice")
                seen.add(id(value))
                waiting.append((f"{place}{key}/", value))


def _check_names(folder: Tree, place: str, name: str) -> None:
    """Refuse names that mean another place than the one under which they stand.

    Raises:
        FFRecordError: naming the first one.
    """
    try:
        joined = "\0".join(folder)
    except TypeError:
        raise FFRecordError(f"{name}: the index has names under {place!r} that are no text") from None
    plain = "/" not in joined and joined.count("\0") == max(0, len(folder) - 1)
    if plain and not any(wrong in folder for wrong in ("", ".", "..")):
        return
    for key in folder:
        if key in ("", ".", "..") or "/" in key or "\0" in key:
            raise FFRecordError(f"{name}: the index has the name {key!r} under {place!r}, which is no name of a file")

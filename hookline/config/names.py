"""Objects by dotted name, and the shortest dotted name of an object."""

import builtins
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

from hookline.config.errors import ConfigError, did_you_mean

_NOTHING = object()
_NAMED_BY_REPR = ("dtype", "layout", "memory_format")  # torch.float32 prints as its own name


def locate(name: str) -> Any:
    """Import an object by its dotted name.

    Args:
        name: Such as ``torch.nn.Linear`` or ``package.module.Class.method``; a name without dots is a builtin.

    Returns:
        The object.

    Raises:
        ConfigError: If a part of the name does not exist (the message holds the nearest that does), or if
            importing its module fails.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{name!r} is no dotted name such as 'package.module.Name'")
    if len(parts) == 1:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise ConfigError(f"{name!r} is no builtin; write the whole way to it, such as 'package.module.{name}'")
    module, rest = _import_longest(parts)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            what = found.__name__ if isinstance(found, ModuleType | type) else type(found).__name__
            raise ConfigError(f"{name!r} does not exist: {what} has no {part!r}{near_in(found, part)}")
        found = getattr(found, part)
    return found


def _import_longest(parts: list[str]) -> tuple[ModuleType, list[str]]:
    """Import as much of a dotted name as is a module; the last part is always left over.

    Raises:
        ConfigError: If not even its first part is one, or importing fails.
    """
    for stop in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:stop])
        try:
            return importlib.import_module(name), parts[stop:]
        except ModuleNotFoundError as error:
            # Only the named module itself, or a package around it, may be missing; a missing dependency of it may not.
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"importing {name!r} failed: {error}") from error
        except Exception as error:
            raise ConfigError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error
    raise ConfigError(missing_module(parts[0]))


def missing_module(name: str) -> str:
    """Say that a module does not exist, and which near one does.

    Args:
        name: Its dotted name.

    Returns:
        The message.
    """
    parent, _, last = name.rpartition(".")
    paths = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    siblings = [] if parent and paths is None else [module.name for module in pkgutil.iter_modules(paths)]
    # Among the hundreds of modules of a machine something is always a little alike.
    hint = did_you_mean(last, siblings, likeness=0.6 if parent else 0.79) if siblings else ""
    return f"there is no module {name!r}{hint}"


def near_in(container: object, name: str) -> str:
    """Suggest members of a module or class for a misspelt one.

    Args:
        container: The module or class.
        name: What was asked of it.

    Returns:
        The tail of an error message.
    """
    members = {member for member in dir(container) if not member.startswith("_")}
    if isinstance(container, ModuleType):
        members |= {module.name for module in pkgutil.iter_modules(getattr(container, "__path__", []))}
    return did_you_mean(name, members)


def dotted_name(thing: Any) -> str:
    """Spell the shortest dotted name under which an object can be imported again.

    Args:
        thing: A class, function, bound method of a class or of a module's own object, enum member, or any
            object that knows its module, such as a torch data type.

    Returns:
        A name for which ``locate`` gives the very same object.

    Raises:
        ConfigError: If there is none; the message says why.
    """
    for candidate in _candidates(thing):
        if _leads_to(candidate, thing):
            return candidate
    raise ConfigError(_why_nameless(thing))


def _candidates(thing: Any) -> Iterator[str]:
    """Propose dotted names, the likeliest first."""
    if isinstance(thing, Enum):
        yield from _shortened(type(thing).__module__, f"{type(thing).__qualname__}.{thing.name}")
        return
    owner = getattr(thing, "__self__", None)
    method = getattr(thing, "__name__", None)
    if owner is not None and method is not None and not isinstance(owner, ModuleType):
        yield from _names_of_owner(owner, method)
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module is not None and qualname is not None:
        yield from _shortened(module, qualname)
    if method is not None:  # builtin functions of extensions (torch.relu) do not know where they are shown
        yield from (f"{package}.{method}" for package in _top_packages(thing))
    if type(thing).__module__ == "torch" and type(thing).__name__ in _NAMED_BY_REPR:
        yield repr(thing)


def _shortened(module: str, qualname: str) -> Iterator[str]:
    """Put a name behind ever longer prefixes of its module, so that ``torch.nn.Linear`` comes first."""
    parts = module.split(".")
    yield from (f"{'.'.join(parts[:stop])}.{qualname}" for stop in range(1, len(parts) + 1))


def _names_of_owner(owner: Any, method: str) -> Iterator[str]:
    """Name a bound method through its class, or through the module-level name of its object."""
    if isinstance(owner, type):
        yield from _shortened(owner.__module__, f"{owner.__qualname__}.{method}")
        return
    module = sys.modules.get(type(owner).__module__)
    for name, value in vars(module).items() if module else ():
        if value is owner:
            yield from _shortened(type(owner).__module__, f"{name}.{method}")


def _top_packages(thing: Any) -> Iterator[str]:
    """Name the package an extension's object says it is from, else every top-level package that is loaded."""
    module = getattr(thing, "__module__", None)
    if module is not None:
        yield module.split(".")[0]
    else:
        yield from [name for name in sys.modules if "." not in name]


def _leads_to(name: str, thing: Any) -> bool:
    """Tell whether a dotted name reaches an object through modules that are loaded; imports nothing."""
    parts = name.split(".")
    for stop in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:stop]))
        if found is None:
            continue
        for part in parts[stop:]:
            found = getattr(found, part, _NOTHING)
        # Bound methods are made anew at every access, so they are equal but never identical.
        if found is thing or (getattr(thing, "__self__", None) is not None and found == thing):
            return parts[0] != "__main__"
    return False


def _why_nameless(thing: Any) -> str:
    """Say why an object has no dotted name."""
    name, module = getattr(thing, "__qualname__", None), getattr(thing, "__module__", None)
    if name is None or module is None:
        return f"a live object of type {type(thing).__name__}; record it with LazyCall instead"
    if name.endswith("<lambda>"):
        return "a lambda has no name to import it by; define a function in a module"
    if "<locals>" in name:
        return f"{name} is defined inside a function; define it at the top of a module"
    if module == "__main__":
        return f"{name} is defined in the script that runs; define it in a module"
    if module.startswith("recipe:"):
        return f"{name} is defined in a recipe; define it in a module and import that by its full name"
    return f"{name} of {module} is not found there under this name"

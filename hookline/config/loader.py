"""Run a recipe file. Its relative imports run other recipe files, afresh each time.

A recipe runs with its own ``__import__``, which Python looks up in the globals' ``__builtins__``. So the hook exists
for recipe code only: other modules and other threads never meet it, and there is nothing to undo when loading fails.
"""

import builtins
import copy
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hookline.config.errors import ConfigError, RecipeImportError, did_you_mean
from hookline.config.lazy import FLAGS, record_value
from hookline.config.names import missing_module, near_in
from hookline.config.origin import set_origin, set_sources
from hookline.config.source import dict_lines, parse


def load_python(path: Path) -> tuple[DictConfig, dict[str, Any]]:
    """Run a recipe.

    Args:
        path: The file.

    Returns:
        Its nodes as one config, and everything its top level defines. Nodes are the dictionaries, lists and recorded
        calls whose names do not begin with an underscore or, if the file has ``__all__``, what that names.

    Raises:
        ConfigError: If the file or one it imports cannot be run; the message says which and where.
    """
    reading = _Reading()
    recipe = reading.run(path.resolve(), ())
    nodes = {name: recipe.node(name) for name in recipe.node_names()}
    try:
        config = OmegaConf.create(nodes, flags=FLAGS)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: the nodes of this recipe make no config: {error}") from error
    set_origin(config, str(path.resolve()))
    set_sources(config, tuple(reading.files))
    return config, recipe.namespace


@dataclass
class _Recipe:
    """A recipe that has run: what its top level defines, and the lines where its dictionaries stand."""

    path: Path
    namespace: dict[str, Any]
    lines: Mapping[tuple[str, ...], int]

    def node_names(self) -> list[str]:
        """List the names of the top level that belong to the config.

        Raises:
            ConfigError: If ``__all__`` names what is not there.
        """
        named = self.namespace.get("__all__")
        if named is None:
            kinds = dict | list | DictConfig | ListConfig
            return [n for n, value in self.namespace.items() if not n.startswith("_") and isinstance(value, kinds)]
        for name in named:
            if name not in self.namespace:
                near = did_you_mean(name, (n for n in self.namespace if not n.startswith("_")))
                raise ConfigError(f"{self.path}: __all__ names {name!r}, which the file does not define{near}")
        return list(named)

    def node(self, name: str) -> Any:
        """Give a top-level value, a dictionary as a node that knows where it was written.

        Raises:
            ConfigError: If it is a dictionary that cannot be a node.
        """
        value = self.namespace[name]
        if not isinstance(value, dict):
            return value
        try:
            node = DictConfig(record_value(value), flags=FLAGS)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{self.path}: {name!r} cannot be a config node: {error}") from error
        for keys, line in self.lines.items():
            if keys[0] == name:
                self._note(node, keys[1:], line)
        return node

    def _note(self, node: Any, keys: tuple[str, ...], line: int) -> None:
        for key in keys:
            node = node._get_node(key) if isinstance(node, DictConfig) and not node._is_none() else None
        if isinstance(node, DictConfig):
            set_origin(node, f"{self.path}:{line}", keep=True)


@dataclass
class _Reading:
    """One call of ``load``: every file it ran."""

    files: dict[str, None] = field(default_factory=dict)

    def run(self, path: Path, importers: tuple[Path, ...]) -> _Recipe:
        """Run one file.

        Args:
            path: The file, absolute.
            importers: The files on whose behalf it runs, outermost first.

        Returns:
            What it defines.

        Raises:
            ConfigError: If it cannot be run.
            RecipeImportError: If it is being run already, because recipes import each other in a circle.
        """
        if path in importers:
            circle = " -> ".join(str(p) for p in (*importers[importers.index(path) :], path))
            raise RecipeImportError(f"recipes import each other in a circle: {circle}")
        self.files.setdefault(str(path))
        tree, code = parse(path)
        hook = _ImportHook(self, path, importers)
        namespace = {
            "__name__": f"recipe:{path.stem}",
            "__file__": str(path),
            "__builtins__": {**vars(builtins), "__import__": hook},
        }
        try:
            exec(code, namespace)
        except ConfigError as error:
            error.add_place(f"in {path}:{_line_in(error, path)}")
            raise
        except Exception as error:
            place = f"{path}:{_line_in(error, path)}"
            raise ConfigError(f"{place}: this recipe fails: {type(error).__name__}: {error}") from error
        return _Recipe(path, namespace, dict(dict_lines(tree)))


@dataclass
class _ImportHook:
    """The ``__import__`` of one recipe."""

    reading: _Reading
    path: Path
    importers: tuple[Path, ...]

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Do what an import statement asks for; the arguments are those of ``__import__``."""
        if level == 0:
            return self._import_module(name, globals, locals, tuple(fromlist or ()))
        return self._import_recipe(name, tuple(fromlist or ()), level)

    def _import_module(self, name: str, globals: Any, locals: Any, wanted: tuple[str, ...]) -> Any:
        """Import an ordinary module; nodes taken from it are copied, because other recipes may take them too.

        Raises:
            RecipeImportError: If the module or a name in it does not exist.
        """
        try:
            module = builtins.__import__(name, globals, locals, wanted, 0)
        except ModuleNotFoundError as error:
            raise RecipeImportError(missing_module(error.name) if error.name else str(error)) from error
        for member in wanted:
            if member != "*" and not hasattr(module, member):
                raise RecipeImportError(f"module {name!r} has no {member!r}{near_in(module, member)}")
        nodes = {m: getattr(module, m) for m in wanted if isinstance(getattr(module, m, None), DictConfig | ListConfig)}
        if not nodes:
            return module
        copied = ModuleType(module.__name__)
        vars(copied).update({member: getattr(module, member) for member in wanted if member != "*"})
        vars(copied).update({member: copy.deepcopy(node) for member, node in nodes.items()})
        return copied

    def _import_recipe(self, name: str, wanted: tuple[str, ...], level: int) -> ModuleType:
        """Run the recipe that a relative import means, and give the names asked for.

        Raises:
            RecipeImportError: If the file or a name in it does not exist.
        """
        statement = f"from {'.' * level}{name} import {', '.join(wanted)}"
        if "*" in wanted:
            raise RecipeImportError(f"{statement!r}: recipes import by name, so that a reader can find what is used")
        if level > len(self.path.parents):
            raise RecipeImportError(f"{statement!r}: there are not so many folders above {self.path}")
        place = self.path.parents[level - 1].joinpath(*(name.split(".") if name else ()))
        found = ModuleType(name)
        file = next(
            (f for f in (place.with_name(f"{place.name}.py"), place / "__init__.py") if name and f.is_file()), None
        )
        recipe = self._run(file) if file else None
        if recipe is None and not place.is_dir():
            near = did_you_mean(place.name, _modules_of(place.parent), kind="that folder has")
            raise RecipeImportError(f"{statement!r}: there is no {place}.py{near}")
        for member in wanted:
            if recipe is not None and member in recipe.namespace:
                setattr(found, member, recipe.node(member))
            elif (place / f"{member}.py").is_file():
                setattr(found, member, self._as_module(member, self._run(place / f"{member}.py")))
            else:
                options = [n for n in recipe.namespace if not n.startswith("_")] if recipe else _modules_of(place)
                near = did_you_mean(member, options, kind="it has")
                raise RecipeImportError(f"{statement!r}: {file or place} has no {member!r}{near}")
        return found

    def _run(self, file: Path) -> _Recipe:
        return self.reading.run(file.resolve(), (*self.importers, self.path))

    def _as_module(self, name: str, recipe: _Recipe) -> ModuleType:
        module = ModuleType(name)
        vars(module).update({member: recipe.node(member) for member in recipe.namespace if not member.startswith("__")})
        return module


def _line_in(error: BaseException, path: Path) -> int:
    """Find the line of a file that was running when an exception passed through it; 0 if none was."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return lines[-1] if lines else 0


def _modules_of(folder: Path) -> list[str]:
    """List what could be imported from a folder."""
    if not folder.is_dir():
        return []
    files = [f.stem for f in folder.glob("*.py") if f.stem != "__init__"]
    return files + [f.name for f in folder.iterdir() if f.is_dir() and any(f.glob("*.py"))]

"""User code beside the suite's own: which files a task names, what they register, and how they are imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from suite.errors import InputError, Problem
from suite.spec.builtin import BUILTIN, KINDS, Kind
from suite.spec.explain import choices
from suite.spec.signatures import Registered, module_path, read_registered

T = TypeVar("T")

ENTRY_POINTS = "suite.components"
_CHANGED = "changed since the runs were planned; start again"


@dataclass(frozen=True)
class PluginFile:
    """One user module: its ``name`` as the task file (or entry point) gives it, its source file and sha256."""

    name: str
    path: Path
    sha256: str
    components: tuple[Registered, ...]

    @classmethod
    def read(cls, name: str, path: Path) -> PluginFile:
        """Hash a source file and find what it registers, without running it.

        Raises:
            InputError: the file is unreadable, not Python, registers nothing, or takes a name that is taken.
        """
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
        components = tuple(read_registered(path))
        if not components:
            raise InputError(Problem('registers nothing; put @register("head", "my-head") on a class', str(path)))
        problems = [Problem(text, item.where) for item in components if (text := _refusal(item.kind, item.name))]
        if problems:
            raise InputError(*problems)
        return cls(name, path, digest, components)

    def load(self) -> ModuleType:
        """Import the module, once for each content.

        Raises:
            InputError: the file changed since it was read, or raises while it is imported.
        """
        dotted = not self.name.endswith(".py")
        alias = self.name if dotted else f"suite_plugin_{self.sha256[:16]}"
        if (module := sys.modules.get(alias)) is not None:
            return module
        try:
            changed = hashlib.sha256(self.path.read_bytes()).hexdigest() != self.sha256
        except OSError:
            changed = True
        if changed:
            raise InputError(Problem(_CHANGED, str(self.path)))
        try:
            with _registering_statically():
                return importlib.import_module(alias) if dotted else _import_file(alias, self.path)
        except InputError:
            raise
        except Exception as error:
            raise InputError(Problem(f"cannot be imported: {type(error).__name__}: {error}", str(self.path))) from error


def _import_file(alias: str, path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(alias, path)
    if found is None or found.loader is None:
        raise InputError(Problem("is not a Python source file (.py)", str(path)))
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickling look the module up by name while it runs.
    sys.modules[alias] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


@dataclass(frozen=True)
class Plugins:
    """The user modules in force: those a task lists and those installed under the entry point group.

    ``files`` maps each name to its file. ``complete`` is false when one of them could not be read: an unknown name may
    then be its. Nothing is imported until a component is loaded.
    """

    files: Mapping[str, PluginFile] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    def of(cls, files: Iterable[PluginFile]) -> Plugins:
        """Plugins of some files; one listed twice counts once.

        Raises:
            InputError: two files register the same component.
        """
        kept: dict[Path, PluginFile] = {}
        owners: dict[tuple[str, str], Registered] = {}
        problems: list[Problem] = []
        for file in files:
            if file.path.resolve() in kept:
                continue
            kept[file.path.resolve()] = file
            for item in file.components:
                first = owners.setdefault((item.kind, item.name), item)
                if first is not item:
                    text = f"{item.kind} {item.name!r} is registered already at {first.where}; choose another name"
                    problems.append(Problem(text, item.where))
        if problems:
            raise InputError(*problems)
        return cls({file.name: file for file in kept.values()})

    @classmethod
    def from_paths(cls, paths: Mapping[str, str], digests: Mapping[str, str]) -> Plugins:
        """The plugins of a run spec: its ``plugin_paths`` (name to source file) and ``plugins`` (name to sha256).

        Raises:
            InputError: a file is gone, or is no longer the one the run was planned with.
        """
        files = [PluginFile.read(name, Path(path)) for name, path in paths.items()]
        changed = [file for file in files if file.sha256 != digests[file.name]]
        if changed:
            raise InputError(*(Problem(_CHANGED, str(file.path)) for file in changed))
        return cls.of(files)

    def find(self, kind: str, name: str) -> tuple[PluginFile, Registered] | None:
        """The file that registers a component, and where in it."""
        for file in self.files.values():
            for item in file.components:
                if (item.kind, item.name) == (kind, name):
                    return file, item
        return None

    def names(self, kind: str) -> list[str]:
        """Names of the components of a kind, in order of registration."""
        return [item.name for file in self.files.values() for item in file.components if item.kind == kind]


def locate(name: str, folder: Path) -> PluginFile:
    """The plugin a task file in ``folder`` calls ``name``: a path ending in ``.py``, or a dotted module.

    Raises:
        InputError: there is no such file or module, or it is refused (see :meth:`PluginFile.read`).
    """
    if name.endswith(".py"):
        path = Path(os.path.normpath(folder / name))
        try:
            known = path.is_file()
        except (OSError, ValueError):
            known = False
        if not known:
            raise InputError(f"no such file: {path}; a plugin's path is relative to the file that lists it")
        return PluginFile.read(name, path)
    found = module_path(name) if all(part.isidentifier() for part in name.split(".")) else None
    if found is None:
        raise InputError(f"no module {name!r} is installed; give an installed module, or a path ending in .py")
    return PluginFile.read(name, found)


def installed() -> list[PluginFile]:
    """The modules that installed packages announce under the entry point group ``suite.components``.

    Raises:
        InputError: one of them cannot be found or read; it names the package to mend or remove.
    """
    files = []
    for point in sorted(entry_points(group=ENTRY_POINTS)):
        path = module_path(point.module)
        package = point.dist.name if point.dist else "an installed package"
        if path is None:
            raise InputError(f"{package} announces components in {point.module!r}, which does not exist; reinstall it")
        files.append(PluginFile.read(point.module, path))
    return files


# ------------------------------------------------------------------------------------------- registering while running

_runtime: dict[tuple[str, str], tuple[Any, PluginFile]] = {}
_static = False


@contextmanager
def _registering_statically() -> Iterator[None]:
    """While a plugin is imported its decorators only check names: its table was read from the source already."""
    global _static
    before, _static = _static, True
    try:
        yield
    finally:
        _static = before


def register(kind: Kind, name: str) -> Callable[[T], T]:
    """Class decorator: make a dataset, encoder, head, pointwise function or stage known under ``name``.

    In a plugin file it is read without running the file. In a program that uses the suite as a library it takes
    effect at once; the class must stand at the top level of a source file.

    Raises:
        InputError: the kind is unknown, the name is malformed, or another component has it.
    """

    def keep(component: T) -> T:
        if refusal := _refusal(kind, name):
            raise InputError(refusal)
        if _static:
            return component
        source = inspect.getsourcefile(component)  # type: ignore[arg-type]  # a class or a function
        qualified = f"{component.__module__}.{getattr(component, '__qualname__', '')}"
        known = _runtime.get((kind, name))
        if known is not None and f"{known[0].__module__}.{known[0].__qualname__}" != qualified:
            raise InputError(f"{kind} {name!r} is registered already by {known[0].__module__}; choose another name")
        path = Path(source or "")
        item = Registered(kind, name, getattr(component, "__qualname__", ""), str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        _runtime[kind, name] = component, PluginFile(component.__module__, path, digest, (item,))
        return component

    return keep


def registered(kind: str) -> dict[str, tuple[Any, PluginFile]]:
    """Components registered while running: name to the object and the file it stands in."""
    return {name: known for (of_kind, name), known in _runtime.items() if of_kind == kind}


def _refusal(kind: str, name: str) -> str:
    if kind not in KINDS:
        return f"unknown kind of component {kind!r}.{choices(kind, KINDS)}"
    if name in BUILTIN[kind]:
        return f"{kind} {name!r} is one of the suite's own; choose another name"
    if not name or not all(c.isalnum() or c in "-_.+" for c in name) or not name.isascii():
        return f"component name {name!r}: use letters, digits, '-', '_', '.' and '+'"
    return ""

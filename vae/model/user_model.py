"""Network of the user: imported by name or from a file, and built for the data."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vaefit.cache.errors import SettingError

from ..errors import MODEL_MODULE, RunError, described

CLASSES_NAMES = ("num_classes", "n_classes", "classes")
"""Parameters of a constructor that receive C."""
DEFAULT_LATENT = 32
_FORMS = "Write package.module:Name or path/to/file.py:Name."


@dataclass(frozen=True)
class ModelSource:
    """Source of a model: module or file, name, and arguments of the constructor."""

    where: str
    """`package.module` or a path that ends in .py."""
    name: str
    """Name of a torch.nn.Module, a class, or a function that returns a module."""
    arguments: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str, arguments: tuple[str, ...] = ()) -> ModelSource:
        """Parse `where:Name` and `key=value`; a value is a Python literal, or else a string.

        Raises SettingError for another form.
        """
        where, colon, name = text.rpartition(":")
        if not colon or not where or not name.isidentifier():
            raise SettingError("the model is not named as where:Name", "--model", text, _FORMS)
        given: dict[str, Any] = {}
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if not equals or not key.isidentifier() or key in given:
                do = "Write --model-arg key=value, each key once."
                raise SettingError("the argument of the model cannot be used", "--model-arg", argument, do)
            given[key] = _literal(value)
        return cls(where, name, given)

    def load(self) -> LoadedModel:
        """Import the object of that name; RunError where that fails, or where the object cannot be a model."""
        found = self._find()
        if not callable(found):
            what = "it is neither a class nor a function nor a torch.nn.Module"
            raise self.no_model_error(what, type(found).__name__)
        return LoadedModel(self, found)

    def __str__(self) -> str:
        return f"--model {self.where}:{self.name}"

    def no_model_error(self, what: str, got: str) -> RunError:
        """Return the error of a name that is no model."""
        return RunError(what, str(self), got, "Name a class, or a function that returns a torch.nn.Module.")

    def _find(self) -> Any:
        try:
            module = _from_file(Path(self.where)) if self.where.endswith(".py") else _from_path(self.where)
        except (Exception, SystemExit) as error:
            do = "Check the name, and that what it imports is installed."
            raise RunError("the model cannot be imported", str(self), described(error), do) from error
        try:
            return getattr(module, self.name)
        except AttributeError:
            there = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, nn.Module)]
            names = ", ".join(there) or "no class of a torch.nn.Module"
            raise RunError("there is no such name", str(self), f"{names} in {self.where}", _FORMS) from None


@dataclass(frozen=True)
class LoadedModel:
    """Imported class, function or module, to be built when the sizes of the data are known."""

    source: ModelSource
    found: Any

    def build(self, classes: int, height: int, width: int, latent_dim: int | None) -> nn.Module:
        """Build the model; a ready module is returned as it is.

        A class or function receives the arguments. It also receives `num_classes` (or `n_classes` or `classes`),
        `height` and `width` where it has such parameters, without a default or with a number, and no argument sets
        them; and `latent_dim` where that was requested or has no default.

        Raises:
            RunError: the model cannot be built, or is no `nn.Module`.
        """
        source, found = self.source, self.found
        if isinstance(found, nn.Module):
            if source.arguments:
                do = "Name its class, or a function that builds it."
                raise RunError("a ready module takes no arguments", str(source), ", ".join(source.arguments), do)
            return found
        sizes = {**dict.fromkeys(CLASSES_NAMES, classes), "height": height, "width": width}
        given = {**_size_arguments(found, sizes, latent_dim), **source.arguments}
        try:
            model = found(**given)
        except (Exception, SystemExit) as error:
            call = ", ".join(f"{key}={value!r}" for key, value in given.items())
            raise RunError(
                "the model cannot be built",
                str(source),
                got=f"{described(error)}, from {source.name}({call})",
                do=f"It takes {_signature(found)}; give it what it needs by --model-arg key=value.",
            ) from error
        if not isinstance(model, nn.Module):
            raise source.no_model_error("what was built is not a torch.nn.Module", type(model).__name__)
        return model


def _from_path(where: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # the console script, unlike `python -m`, does not search the working directory
    return importlib.import_module(where)


def _from_file(file: Path) -> ModuleType:
    """Import a file as a module; the file can import its neighbours."""
    file = file.resolve()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    name = MODEL_MODULE + file.stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _size_arguments(built: Any, sizes: Mapping[str, int], latent_dim: int | None) -> dict[str, Any]:
    """Return the sizes for which the constructor has parameters."""
    try:
        parameters = inspect.signature(built).parameters
    except (TypeError, ValueError):
        return {}
    given: dict[str, Any] = {
        name: value
        for name, value in sizes.items()
        # a default of another type has another meaning, for example the names of the classes
        if name in parameters and type(parameters[name].default) in (int, type(None), type)
    }
    latent = parameters.get("latent_dim")
    if latent is not None and latent_dim is not None:
        given["latent_dim"] = latent_dim
    elif latent is not None and latent.default is inspect.Parameter.empty:
        given["latent_dim"] = DEFAULT_LATENT
    return given


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _signature(built: Any) -> str:
    """Return the parameters and their defaults, without the types."""
    try:
        signature = inspect.signature(built)
    except (TypeError, ValueError):
        return "unknown arguments"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))

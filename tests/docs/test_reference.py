"""The reference lists the commands, options, files, keys and signatures of the program, and no others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import vaefit.cache
import vaefit.kernels
import vaefit.vae
from tests.docs.markdown_commands import PAGES, fill
from vaefit.cli.app import app
from vaefit.vae import RECIPES, CollapseMonitor, Recipe
from vaefit.vae.metrics.diagnosis import Cause
from vaefit.vae.run_folder.folder import FILES
from vaefit.vae.training.settings import RECIPES as TRAIN_RECIPES

REFERENCE = PAGES["docs/reference.md"]
ONE_FILE_ONLY = {"route", "reason", "threads", "resumed"}
"""Keys of `weights --json` that several files have one by one."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small datasets."""
    return fill(tmp_path_factory.mktemp("reference"))


def section(title: str) -> str:
    """Return the text below a heading of the reference, up to the next heading."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", REFERENCE, flags=re.M | re.S)
    assert found, title
    return found[2]


def rows(title: str) -> list[list[str]]:
    """Return the cells of a section's table, row by row, without the head."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def first_cells(title: str) -> list[str]:
    """Return the names in the first cells of a table."""
    return [name for row in rows(title) for name in re.findall(r"`([^`]+)`", row[0])]


def commands(command: Any = None, name: str = "vaefit-cli") -> Iterator[tuple[str, Any]]:
    """Yield the words and the object of every command; the program itself is one."""
    command = command or typer.main.get_command(app)
    inside = getattr(command, "commands", {})
    if not inside or name == "vaefit-cli":
        yield name, command
    for word, below in inside.items():
        yield from commands(below, f"{name} {word}")


PROGRAMS = dict(commands())


def test_the_reference_has_every_command_and_no_other() -> None:
    assert set(re.findall(r"^### `(vaefit-cli[^`]*)`$", REFERENCE, flags=re.M)) == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_options_are_those_of_the_help(name: str, vaefit_cli: Callable[..., Any]) -> None:
    shown = vaefit_cli(*name.split()[1:], "--help").out
    offered = [
        option
        for line in re.findall(r"^  (-.*)$", shown, flags=re.M)
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.split(r"  | <|(?<=[a-z]) (?=[A-Z0-9])", line)[0])
    ]
    offered = [option for option in offered if option not in ("--help", "-h") or name == "vaefit-cli"]
    written = first_cells(f"`{name}`")
    assert sorted(written) == sorted(offered)


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_defaults_are_those_of_the_program(name: str) -> None:
    written = {option: row for row in rows(f"`{name}`") for option in re.findall(r"`(--[a-z-]+)`", row[0])}
    recipe = {"vaefit-cli overfit": RECIPES["default"], "vaefit-cli train": TRAIN_RECIPES["default"]}.get(name)
    for parameter in PROGRAMS[name].params:
        if parameter.param_type_name == "argument":
            continue
        row = written[parameter.opts[0]]
        if "|" in (parameter.metavar or ""):
            choices = [choice for choice in parameter.metavar.split("|") if choice != "RATE"]
            assert [choice for choice in choices if f"`{choice}`" not in row[1]] == []
        elif parameter.metavar:
            assert row[1] == f"`{parameter.metavar}`"
        assert row[2] == default_of(parameter, recipe), parameter.opts


def default_of(parameter: Any, recipe: Recipe | None) -> str:
    """Return the default of an option as the reference writes it; a recipe's setting has the recipe's default."""
    value = getattr(recipe, parameter.name, parameter.default)
    if parameter.secondary_opts:
        return "-" if value is None else f"`{parameter.secondary_opts[0]}`"
    if isinstance(value, bool) or (parameter.is_flag and value is None):
        return "-" if parameter.name in ("_", "install_completion", "show_completion") else "off"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "-" if value is None else f"`{value}`"


def test_the_recipes_are_those_of_the_program() -> None:
    written = {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in rows("The recipes")}
    recipes = [asdict(RECIPES[name]) for name in ("default", "adam", "classic")]
    different = {setting for setting in recipes[0] if len({str(recipe[setting]) for recipe in recipes}) > 1}
    assert set(written) == different
    for setting, values in written.items():
        assert values == [str(recipe[setting]) for recipe in recipes]


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Yield every key of a JSON value, as the reference writes it."""
    if isinstance(value, dict):
        for name, inside in value.items():
            below = f"{path}.{name}" if path else name
            yield below
            yield from keys(inside, below)
    elif isinstance(value, list):
        for inside in value:
            if isinstance(inside, dict):
                yield from keys(inside, f"{path}[]")


def test_keys_of_overfit(workplace: Path, tmp_path: Path, vaefit_cli: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    done = vaefit_cli(
        "overfit", f"{workplace}/shards/*.h5", "--iterations", 8, "--diagnose", "--out", run, "--json", "--quiet"
    )
    assert done.json["diagnosis"]["controls"]
    assert done.json["dataset"]["shards"]
    written = first_cells("Keys of `overfit --json`")
    assert sorted(written) == sorted(set(keys(done.json)))
    assert vaefit_cli("show", run, "--json").json == done.json
    assert {path.name for path in run.iterdir()} <= set(first_cells("Files"))


AS_IN_OVERFIT = ("dataset", "weights", "preflight", "backend", "backend_reason", "device", "model", "adapter", "lr",
                 "lr_reason", "run_dir")  # fmt: skip


def test_keys_of_train(workplace: Path, tmp_path: Path, vaefit_cli: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    done = vaefit_cli(
        "train", workplace / "grids.h5", "--epochs", 1, "--batch-size", 16, "--out", run, "--json", "--quiet"
    )
    found = {key for key in keys(done.json) if key.partition(".")[0] not in AS_IN_OVERFIT}
    assert sorted(first_cells("Keys of `train --json`")) == sorted(found)
    explained = section("Keys of `train --json`")
    assert [key for key in AS_IN_OVERFIT if f"`{key}`" not in explained] == []
    assert {path.name for path in run.iterdir()} <= {name.rstrip("/") for name in first_cells("Files")}


def test_keys_of_weights(workplace: Path, vaefit_cli: Callable[..., Any]) -> None:
    found: set[str] = set()
    vaefit_cli("weights", workplace / "grids.h5", "--quiet")
    for data in (workplace / "grids.h5", f"{workplace}/shards/*.h5"):
        vaefit_cli("weights", data, "--quiet")
        done = vaefit_cli("weights", data, "--all-schemes", "--verify", "--verbose", "--json", "--quiet")
        found |= {key for key in keys(done.json) if not key.startswith("schemes.")}
    assert found >= ONE_FILE_ONLY
    assert sorted(first_cells("Keys of `weights --json`")) == sorted(found)


def test_keys_of_compare(workplace: Path, tmp_path: Path, vaefit_cli: Callable[..., Any]) -> None:
    for name in ("first", "second"):
        vaefit_cli("overfit", workplace / "grids.h5", "--iterations", 2, "--out", tmp_path / name, "--quiet")
    found = vaefit_cli("compare", tmp_path / "first", tmp_path / "second", "--json").json
    assert first_cells("Keys of `compare --json`") == list(found)
    (described,) = [row[1] for row in rows("Keys of `compare --json`") if row[0] == "`objective`"]
    assert re.findall(r"`([^`]+)`", described) == list(found["objective"])


@pytest.mark.parametrize(("code", "arguments"), [(2, ["--iterations", "-3"]), (3, ["none.h5"])])
def test_keys_of_an_error(code: int, arguments: list[str], vaefit_cli: Callable[..., Any]) -> None:
    done = vaefit_cli("overfit", *arguments, "--json")
    assert done.code == done.json["exit"] == code
    assert sorted(first_cells("Keys of an error")) == sorted(keys(done.json))
    assert [row[0] for row in rows("Exit codes")] == ["0", "1", "2", "3", "130"]


def test_the_causes_are_those_of_the_program() -> None:
    assert set(get_args(Cause)) <= set(re.findall(r"`([^`]+)`", section("The diagnosis").replace("\n", " ")))
    explained = re.findall(r"^\| ([A-Za-z ]+) \|", PAGES["docs/method.md"], flags=re.M)
    assert set(get_args(Cause)) <= set(explained)


def test_files_of_a_run_folder() -> None:
    assert set(FILES) <= set(first_cells("Files"))


@pytest.mark.parametrize("package", [vaefit.kernels, vaefit.cache, vaefit.vae], ids=lambda package: package.__name__)
def test_signatures_are_those_of_the_program(package: Any) -> None:
    text = re.sub(r"\s+", " ", section(f"`{package.__name__}`"))
    names = [*package.__all__, *(["CollapseCallback"] if package is vaefit.vae else [])]
    for name in names:
        assert name in text
        if name == "CollapseCallback" and not find_spec("lightning"):
            continue  # the class derives from Lightning's; CI has it
        found = getattr(package, name)
        if inspect.isfunction(found) or (inspect.isclass(found) and f"{name}(" in text):
            assert signature(name, found) in text
    for name in re.findall(r"(\w+)\(", " ".join(re.findall(r"```(.*?)```", text))):
        assert name in names


def test_the_monitor_is_updated_as_the_reference_says() -> None:
    written = signature("CollapseMonitor.update", CollapseMonitor.update).replace("(self, ", "(")
    assert written in re.sub(r"\s+", " ", REFERENCE)


def signature(name: str, found: Callable[..., Any]) -> str:
    """Name and parameters, without the types."""
    parameters = inspect.signature(found).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return f"{name}{inspect.Signature(bare)}"

"""`--model`: networks that are imported by name or from a file, and what is said where that does not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from vaefit.cache.errors import SettingError
from vaefit.vae.errors import RunError
from vaefit.vae.model.user_model import ModelSource

NETWORKS = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Output:
    logits: torch.Tensor
    mu: torch.Tensor
    log_var: torch.Tensor

class Mlp(nn.Module):
    def __init__(self, num_classes: int, height: int, width: int, hidden: int = 64, norm: str = "none"):
        super().__init__()
        self.shape = (num_classes, height, width)
        self.hidden, self.norm = hidden, norm
        cells = num_classes * height * width
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(cells, hidden), nn.ReLU())
        self.mu, self.logvar, self.out = nn.Linear(hidden, 16), nn.Linear(hidden, 16), nn.Linear(16, cells)

    def forward(self, x):
        hidden = self.inner(x)
        mu = self.mu(hidden)
        return Output(self.out(mu).view(-1, *self.shape), mu, self.logvar(hidden))

class Latent(nn.Linear):
    def __init__(self, latent_dim):
        super().__init__(latent_dim, 2)

def factory(classes, depth=2):
    return nn.Sequential(*[nn.Linear(classes, classes) for _ in range(depth)])

def three():
    return 3

def broken():
    raise ValueError("no such luck")

ready = nn.Linear(3, 4)
NUMBER = 5
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """A file of networks."""
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    return file


def _build(text: str, *arguments: str, latent_dim: int | None = None) -> nn.Module:
    return ModelSource.parse(text, arguments).load().build(10, 8, 9, latent_dim)


def test_a_class_is_given_the_sizes_and_the_arguments(networks: Path) -> None:
    model = _build(f"{networks}:Mlp", "hidden=32", "norm=layer")
    assert (model.shape, model.hidden, model.norm) == ((10, 8, 9), 32, "layer")
    assert _build(f"{networks}:Mlp", "num_classes=3").shape == (3, 8, 9)


def test_the_latent_is_given_where_it_is_needed_or_asked_for(networks: Path) -> None:
    assert _build(f"{networks}:Latent").in_features == 32
    assert _build(f"{networks}:Latent", latent_dim=5).in_features == 5
    assert _build(f"{networks}:Latent", "latent_dim=7", latent_dim=5).in_features == 7


def test_a_function_may_make_it_and_a_ready_module_is_taken(networks: Path) -> None:
    assert len(list(_build(f"{networks}:factory", "depth=3"))) == 3
    assert isinstance(_build(f"{networks}:ready"), nn.Linear)
    assert _build("torch.nn:Identity") is not None


def test_a_file_finds_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it_lies.py").write_text("from torch import nn\nclass Part(nn.Linear): pass\n")
    (tmp_path / "whole.py").write_text("from beside_it_lies import Part\ndef make(): return Part(2, 2)\n")
    assert type(_build(f"{tmp_path}/whole.py:make")).__name__ == "Part"


def test_a_package_is_found_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").write_text("")
    (tmp_path / "my_nets" / "small.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\n")
    monkeypatch.chdir(tmp_path)
    model = _build("my_nets.small:Net", "in_features=2", "out_features=3")
    assert model.out_features == 3


@pytest.mark.parametrize("text", ["net", ":Name", "net:", "net.py", "net:two words", ""])
def test_a_name_of_another_form_is_a_usage_error(text: str) -> None:
    with pytest.raises(SettingError, match=r"--model.*package\.module:Name or path/to/file\.py:Name"):
        ModelSource.parse(text)


@pytest.mark.parametrize("arguments", [("a",), ("=1",), ("a-b=1",), ("a=1", "a=2")])
def test_an_argument_of_another_form_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match=r"--model-arg.*key=value, each key once"):
        ModelSource.parse("net:Net", arguments)


def test_values_are_python_literals_or_words() -> None:
    given = ModelSource.parse("n:N", ("a=3", "b=0.5", "c=(1, 2)", "d=None", "e=relu", "f=", "g='3'", "h=a=b")).arguments
    assert given == {"a": 3, "b": 0.5, "c": (1, 2), "d": None, "e": "relu", "f": "", "g": "3", "h": "a=b"}


@pytest.mark.parametrize(
    ("name", "arguments", "wording"),
    [
        ("Absent", (), r"there is no such name \(got Mlp, Latent in"),
        ("NUMBER", (), "neither a class nor a function nor a torch.nn.Module .*int"),
        ("three", (), "what was built is not a torch.nn.Module .*int"),
        ("broken", (), r"cannot be built .*no such luck \(.*networks.py, line"),
        (
            "Mlp",
            ("hiden=3",),
            r"hiden.*It takes \(num_classes, height, width, hidden=64, norm='none'\)",
        ),
        ("Mlp", ("hidden=-1",), r"cannot be built .*from Mlp\(num_classes=10, height=8, width=9, hidden=-1\)"),
    ],
)
def test_what_gives_no_model_is_told_so(networks: Path, name: str, arguments: tuple[str, ...], wording: str) -> None:
    with pytest.raises(RunError, match=wording):
        _build(f"{networks}:{name}", *arguments)


@pytest.mark.parametrize(
    ("content", "wording"),
    [
        ("import no_such_package_anywhere", "ModuleNotFoundError: No module named 'no_such_package_anywhere'.*line 1"),
        ("x = 1 +", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero .*line 1"),
    ],
)
def test_a_file_that_cannot_be_run_is_told_so(tmp_path: Path, content: str, wording: str) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(RunError, match=f"the model cannot be imported.*{wording}"):
        _build(f"{tmp_path}/bad.py:Net")
    with pytest.raises(RunError, match="there is no file"):
        _build(f"{tmp_path}/absent.py:Net")
    with pytest.raises(RunError, match="No module named 'no_such_module'"):
        _build("no_such_module:Net")


def test_the_check_of_a_model_of_ones_own(vaefit_cli, dataset, tmp_path, networks) -> None:
    out = tmp_path / "run"
    outcome = vaefit_cli(
        "overfit", dataset, "--model", f"{networks}:Mlp", "--model-arg", "hidden=96", "--json", "--out", out
    )
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert found["verdict"] == "MEMORISED"
    assert found["model"].startswith("Mlp, ")
    assert found["adapter"] == (
        "one-hot (B, 10, H, W) -> logits at 'logits' of a Output, mu at 'mu' and logvar at 'log_var'"
    )
    assert "of 6 rates" in found["lr_reason"]
    config = (out / "config.json").read_text()
    assert '"hidden": "96"' in config
    shown = vaefit_cli("show", out)
    assert "model       Mlp, " in shown.out
    assert "rate        " in shown.out


def test_what_a_model_prints_stays_out_of_the_json(vaefit_cli, dataset, tmp_path) -> None:
    file = tmp_path / "loud.py"
    file.write_text(
        "print('imported')\nimport torch\nfrom torch import nn\n"
        "class Loud(nn.Conv2d):\n"
        "    def __init__(self, num_classes): super().__init__(num_classes, num_classes, 1)\n"
        "    def forward(self, x):\n        print('forward')\n        return super().forward(x)\n"
    )
    outcome = vaefit_cli("overfit", dataset, "--model", f"{file}:Loud", "--json", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert outcome.json["verdict"] == "MEMORISED"
    assert "imported" in outcome.err


def test_arguments_without_a_model_and_a_rate_that_is_none(vaefit_cli, dataset) -> None:
    assert "pass --model too" in vaefit_cli("overfit", dataset, "--model-arg", "a=1").err
    assert "not a number, nor auto" in vaefit_cli("overfit", dataset, "--lr", "fast").err


BAD = """
import torch
from torch import nn

class Base(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(num_classes, num_classes, 1)
    def forward(self, x):
        return self.change(self.conv(x))

class Rank(Base):
    def change(self, x): return x.flatten(1)

class Classes(Base):
    def change(self, x): return x[:, :7]

class Side(Base):
    def change(self, x): return x[:, :, 1:]

class NotANumber(Base):
    def change(self, x): return x * torch.nan

class Blind(Base):
    def change(self, x): return x * 0 + self.conv.bias.view(1, -1, 1, 1)

class Empty(nn.Module):
    def forward(self, x): return x

class Frozen(Base):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.requires_grad_(False)
"""


@pytest.mark.parametrize(
    ("name", "wording"),
    [
        ("Rank", r"must return logits (32, 10, 8, 8)"),
        ("Classes", "gives 7 classes, but 10 are needed"),
        ("Side", "sides are not 8 x 8"),
        ("Empty", "no parameter that can learn"),
        ("Frozen", "no parameter that can learn"),
    ],
)
def test_a_model_that_does_not_fit_ends_with_one_error(vaefit_cli, dataset, tmp_path, name, wording):
    (tmp_path / "bad.py").write_text(BAD)
    outcome = vaefit_cli("overfit", dataset, "--model", tmp_path / f"bad.py:{name}", "--out", tmp_path / "run")
    assert outcome.code == 3
    assert wording in outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "verdict"), [("NotANumber", "DIVERGED"), ("Blind", "COLLAPSED")])
def test_a_model_that_cannot_learn_gets_its_verdict(vaefit_cli, dataset, tmp_path, name, verdict):
    (tmp_path / "bad.py").write_text(BAD)
    model = ("--model", tmp_path / f"bad.py:{name}", "--iterations", "30", "--diagnose")
    outcome = vaefit_cli("overfit", dataset, *model, "--json", "--out", tmp_path / "run")
    assert outcome.code == 1
    assert outcome.json["verdict"] == verdict
    assert outcome.json["diagnosis"]["cause"] == ("output collapse" if name == "Blind" else "unknown")

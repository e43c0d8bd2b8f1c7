"""The verdict against its rules, said once more in exact fractions; the advice is an option that changes something."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from vaefit.vae.metrics.accuracy import Accuracies, BaselineShares, retrieval, variation
from vaefit.vae.metrics.advice import AdviceContext
from vaefit.vae.metrics.verdict import Evidence, judge
from vaefit.vae.recipe import RECIPES, BetaRamp, Recipe

VERDICTS = ("MEMORISED", "LEARNING", "COLLAPSED", "DIVERGED")


def ruled(diverged, worst, target, pixel, skill, retrieved, varied, own_inputs, one_class) -> str:
    """The four rules in their order; numbers may be floats or fractions."""
    if diverged:
        return "DIVERGED"
    exact = pixel == 1 or (own_inputs and worst >= Fraction(99, 100))
    skilled = exact if skill is None else skill >= Fraction(3, 4)
    recalled = retrieved is None or retrieved >= Fraction(3, 4)
    if worst >= target and pixel > Fraction(95, 100) and skilled and recalled:
        return "MEMORISED"
    if skill is None or varied is None:
        return "COLLAPSED" if one_class else "LEARNING"
    return "COLLAPSED" if skill <= Fraction(5, 100) and varied <= Fraction(1, 10) else "LEARNING"


def covering(cells: np.ndarray) -> list[int]:
    """The class that covers 99 % of the cells, if one does."""
    return [c for c, n in enumerate(cells.tolist()) if 100 * n >= 99 * int(cells.sum())]


near = st.sampled_from([0.0, 0.05, 0.06, 0.125, 0.13, 0.2, 0.5, 0.74, 0.75, 0.9, 0.94, 0.95, 0.96, 0.999, 1.0])
high = st.sampled_from([0.95, 0.951, 1.0])
contexts = st.builds(
    AdviceContext,
    cells=st.integers(1, 900),
    batch_size=st.integers(1, 200),
    latent_dim=st.none() | st.integers(1, 64),
    weight_ratio=st.sampled_from([1.0, 1.009, 1.01, 11.0, float("inf")]),
    behind=st.none() | st.integers(0, 9),
    tail=st.none() | st.floats(0, 2),
)
# only the user's own weights may be 0
contexts |= st.builds(replace, contexts, weights_file=st.just(True), unweighted=st.none() | st.integers(0, 9))
recipes = st.builds(
    Recipe,
    init=st.sampled_from([None, "kaiming", "rescaled", "default"]),
    resample=st.booleans(),
    z=st.sampled_from(["mu", "sample"]),
    beta=st.sampled_from([0.0, 1e-4, 0.5, 3.0]),
    beta_ramp=st.none() | st.builds(BetaRamp, st.just(1.0), st.just(2.0), st.sampled_from([0.0, 0.2, 5.0])),
    gamma=st.sampled_from([0.0, 2.0, 50.0]),
    weights=st.sampled_from(["global", "batch", "none"]),
    scheme=st.sampled_from(["sqrt_inverse", "inverse", "balanced", "effective", "none"]),
    smooth=st.sampled_from([0.0, 1.0, 1e9]),
    reduction=st.sampled_from(["batch", "mean", "sum"]),
    optimizer=st.sampled_from(["adam", "muon"]),
    lr=st.sampled_from([1e-6, 5e-4, 2e-3, 8e-3, 1.0]),
    warmup=st.sampled_from([0, 5, 10_000]),
    clip=st.sampled_from([0.0, 1e-9, 1.0]),
    iterations=st.sampled_from([0, 100, 200, 500, 5000]),
    target=st.sampled_from([0.5, 0.9, 0.95, 1.0]),
) | st.sampled_from(list(RECIPES.values()))


@st.composite
def evidence(draw) -> Evidence:
    pixel = draw(near | high)
    worst = min(pixel, draw(near | high))
    cells = st.sampled_from([(990, 10, 0), (989, 11, 0), (0, 99, 1), (1, 1, 1), (0, 0, 5), (2, 0, 198)]).map(np.array)
    return Evidence(
        Accuracies(pixel, (pixel, None, worst), (pixel + worst) / 2, worst, 2, draw(cells), draw(cells)),
        draw(st.none() | near | high | st.floats(-9, 1)),
        draw(st.none() | near | high | st.integers(0, 32).map(lambda hits: hits / 32)),
        draw(st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.101, 1.0, 4.7])),
        draw(st.booleans()),
        diverged=draw(st.sampled_from([*[None] * 5, "the loss is nan after 3 updates"])),
        context=draw(contexts),
    )


@settings(max_examples=500)
@given(evidence(), recipes)
def test_the_verdict_is_that_of_its_rules(found, recipe):
    a = found.accuracies
    exact = [None if v is None else Fraction(str(v)) for v in (a.worst, recipe.target, a.pixel, found.skill)]
    hits = None if found.retrieval is None else Fraction(found.retrieval).limit_denominator(1000)
    varied = None if found.variation is None else Fraction(str(found.variation))
    one_class = covering(a.predicted) != [] and covering(a.predicted) != covering(a.held)
    expected = ruled(found.diverged is not None, *exact, hits, varied, found.own_inputs, one_class)
    event(expected)
    judgement = judge(found, recipe)
    assert judgement.verdict == expected
    assert judgement.verdict in VERDICTS
    assert judgement.passed == (expected == "MEMORISED") == (judgement.next == "")
    assert judgement.reason
    assert judgement.collapsed_class == (next(iter(covering(a.predicted)), None) if expected == "COLLAPSED" else None)
    assert judge(replace(found, context=AdviceContext()), recipe).verdict == expected


@st.composite
def runs(draw) -> tuple[np.ndarray, np.ndarray]:
    """Targets and reconstructions, from a copy of the targets to one picture for all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.sampled_from([1, 2, 4, 8, 16])), 2, draw(st.sampled_from([2, 5, 10])))
    targets = np.where(rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 1.0])), rng.integers(0, 3, shape), 0)
    best = np.array([[np.bincount(targets[:, y, x]).argmax() for x in range(shape[2])] for y in range(2)])
    kind = draw(st.sampled_from(["copy", "picture", "class", "noise"]))
    if kind == "noise":
        return targets, rng.integers(0, 3, shape)
    found = {"copy": targets, "picture": np.broadcast_to(best, shape), "class": np.zeros(shape, int)}[kind].copy()
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 5]))):
        found[tuple(rng.integers(0, side) for side in shape)] = rng.integers(0, 3)
    return targets, found


@settings(max_examples=400)
@given(runs(), st.sampled_from([None, 0, 2]), st.sampled_from([0.5, 0.95, 1.0]), st.booleans())
def test_the_verdict_of_a_reconstruction_in_fractions(run, ignore, target, own_inputs):
    targets, found = run
    size = len(targets)
    kept = [where for where in np.ndindex(*targets.shape) if targets[where] != ignore]
    assume(kept)
    counts = np.zeros((3, 3), dtype=np.int64)
    for where in kept:
        counts[targets[where], found[where]] += 1
    accuracies = Accuracies.from_confusion(counts)
    shares = BaselineShares.from_targets(targets, 3, ignore)
    skill, of_pairs = shares.skill(accuracies.pixel), variation(found, targets, 3, ignore)
    measured = Evidence(accuracies, skill, retrieval(found, targets, ignore), of_pairs, own_inputs)
    judgement = judge(measured, Recipe(target=target))

    right = sum(int(targets[w] == found[w]) for w in kept)
    recalls = [Fraction(int(counts[c, c]), int(counts[c].sum())) for c in range(3) if counts[c].any()]
    background = 0
    for y, x in np.ndindex(*targets.shape[1:]):
        column = [int(t) for t in targets[:, y, x] if t != ignore]
        background += max((column.count(c) for c in column), default=0)
    skill = None if background == len(kept) else Fraction(right - background, len(kept) - background)
    hits = 0
    for i in range(size):
        own = [w for w in np.ndindex(*targets.shape[1:]) if targets[i][w] != ignore]
        agree = [sum(found[i][w] == targets[j][w] != ignore for w in own) for j in range(size)]
        hits += all(agree[i] > agree[j] for j in range(size) if any(targets[i][w] != targets[j][w] for w in own))
    pixel = Fraction(right, len(kept))
    retrieved = None if size == 1 else Fraction(hits, size)
    pairs = [(w, v) for w in kept for v in kept if w[1:] == v[1:] and w[0] < v[0]]
    apart = sum(targets[w] != targets[v] for w, v in pairs)
    varied = Fraction(int(sum(found[w] != found[v] for w, v in pairs)), int(apart)) if apart else None
    one_class = covering(counts.sum(axis=0)) != [] and covering(counts.sum(axis=0)) != covering(counts.sum(axis=1))
    bar = Fraction(str(target))
    expected = ruled(False, min(recalls), bar, pixel, skill, retrieved, varied, own_inputs, one_class)
    event(expected)
    assert judgement.verdict == expected
    if expected == "COLLAPSED":
        assert judgement.collapsed_class == next(iter(covering(counts.sum(axis=0))), None)


@pytest.fixture(scope="module")
def options(vaefit_cli) -> set[str]:
    """Return every option that the help of `overfit` shows."""
    return set(re.findall(r"--[a-z][a-z-]*", vaefit_cli("overfit", "--help").out))


def pasted(recipe: Recipe, option: str, value: str) -> Recipe:
    """The recipe with one option of the command line set."""
    name = option.removeprefix("--").replace("-", "_")
    if name == "no_resample":
        return replace(recipe, resample=False)
    if name == "beta_ramp":
        return replace(recipe, beta_ramp=BetaRamp(*(float(part) for part in value.split(","))))
    kind = type(getattr(recipe, name))
    return replace(recipe, **{name: (str if kind is type(None) else kind)(value)})


@settings(max_examples=500)
@given(evidence(), recipes)
def test_the_advice_is_an_option_that_changes_something(options, found, recipe):
    advice = judge(found, recipe).next
    assume(advice)
    parts = re.fullmatch(r".+: try (--[a-z-]+)(?: ([^ ]+))?(?: instead of (--[a-z-]+))?\.", advice)
    assert parts, advice
    option, value, instead = parts.groups()
    event(option)
    assert option in options
    if option == "--latent-dim":
        assert int(value) > found.context.latent_dim
    elif option == "--batch-size":
        assert int(value) < found.context.batch_size
    elif instead:
        assert instead in options
        assert found.context.weights_file
    else:
        assert pasted(recipe, option, value) != recipe

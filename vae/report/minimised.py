"""What a run minimised: the parts of its objective, from its folder."""

from __future__ import annotations

from typing import Any

from .stored import StoredRun


def minimised(run: StoredRun) -> dict[str, Any]:
    """The parts of the objective by name, in the order in which they are told.

    Two runs whose parts are equal have the same objective: focal loss over these weights, reduced this way, plus beta
    times the divergence. The weights are float64 values, which JSON keeps to the last bit.
    """
    settings, recipe = run.config.get("settings", {}), run.config.get("recipe", {})
    weights = run.summary.setup.weights
    return {
        "loss": "focal",  # the only one; gamma 0 makes it cross-entropy
        "weights": list(weights.values),
        "source": weights.source,
        "scheme": weights.scheme,
        "gamma": recipe.get("gamma"),
        "reduction": recipe.get("reduction"),
        "ignore-index": settings.get("ignore_index"),
        "beta": _beta(settings, recipe),
        # with beta 0 there is no divergence that could be free
        "free-bits": recipe.get("free_bits", 0.0) if _beta(settings, recipe) else 0.0,
    }


def _beta(settings: dict[str, Any], recipe: dict[str, Any]) -> Any:
    """beta as one number where it is constant, else what it follows."""
    if recipe.get("beta_ramp"):
        return recipe["beta_ramp"]
    beta = recipe.get("beta")
    names = ("beta_warmup", "beta_cycles")
    changes = {name.replace("_", "-"): settings[name] for name in names if settings.get(name)}
    return {"beta": beta, **changes} if beta and changes else beta

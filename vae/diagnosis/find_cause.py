"""Search for the cause of a failed run: probes of the model first, then reruns, the cheapest first."""

from __future__ import annotations

from dataclasses import replace

from ..metrics.advice import STILL_FALLING
from ..metrics.diagnosis import Cause, Control, Diagnosis, Finding
from ..metrics.verdict import COLLAPSE_SKILL, three_decimals
from ..model.gradient_reach import layers_of
from ..model.state import Snapshot
from . import gradient_flow, input_target_pairs, model_probes
from .changes import Change, deviations, faster, longer, one_grid, variations, whole_recipe
from .failed_run import FailedRun
from .model_probes import SAME
from .reruns import SHORT, OnControl, Overfit, Reruns

GOOD_PART = 0.05
"""Least share of the parameters for a cause."""
WORTH_MORE = 0.1
"""A change that raises the worst class by at least this much in a short rerun gets a longer one."""
HELPED = 0.3
"""A change that alone raises the worst class by at least this much is part of the cause."""


def find_cause(failed: FailedRun, overfit: Overfit, on_control: OnControl | None = None) -> Diagnosis:
    """Return the cause of a failed run, with two numbers as evidence and the change that fixes it.

    The order: contradictory pairs; a difference between training and evaluation mode; one setting whose default fixes
    the run; logits that are not finite or squashed, an input or a latent without effect, layers without a gradient; the
    fewest settings that fix it together; settings beside the recipe's; frozen or unused layers; too little capacity.
    The model keeps the parameters of the run.

    Args:
        overfit: `vaefit.vae.overfit`, which makes the reruns.
        on_control: called with the name of a rerun's changes and each record of it.
    """
    final = Snapshot.from_model(failed.model)
    try:
        return _Search(failed, overfit, on_control).diagnosis()
    finally:
        final.restore(failed.model)


class _Search:
    """State of one diagnosis, after all probes, which need no training."""

    def __init__(self, failed: FailedRun, overfit: Overfit, on_control: OnControl | None) -> None:
        self.failed = failed
        found = [
            model_probes.latent_finding(failed),
            model_probes.dead_units_finding(failed),
            model_probes.saturation_finding(failed),
            model_probes.logits_finding(failed),
            model_probes.absent_finding(failed),
            input_target_pairs.contradiction_finding(
                failed.batch, failed.adapter.classes, failed.ignore_index, failed.recipe.target
            ),
            input_target_pairs.alignment_finding(failed.batch, failed.ignore_index),
        ]
        failed.start(failed.recipe.init)
        first = model_probes.spread(failed)
        self.samples = model_probes.samples_in_training(failed)
        """True if the model draws random numbers in training."""
        self.decoder_reads = model_probes.decoder_reads(failed)
        """True if different z give different logits; None if z cannot be set."""
        broken = model_probes.first_not_finite(failed)
        self.blocked = gradient_flow.blocked_parameters(failed)
        """Parameters without a gradient under both initialisations."""
        self.cut = bool(self.blocked and gradient_flow.cut_off(failed, self.blocked))
        """True if one of them should have a gradient: it is not frozen, and its layer is called."""
        failed.start("rescaled")
        self.starts = first, model_probes.spread(failed)
        """Variation over the grids at the start, and after another initialisation."""
        self.broken = broken and model_probes.first_not_finite(failed)
        """The first layer whose output is not finite under both initialisations."""
        if self.broken is not None:
            words = f"{self.broken}, before the first update and under two initialisations"
            found.insert(0, Finding("first output that is not finite", words, suspicious=True))
        words = "it reaches every parameter"
        if self.blocked:
            layers = self._layers(self.blocked)
            total = sum(1 for _ in failed.model.parameters())
            words = f"none in {layers} ({len(self.blocked)} of {total} parameters), under two initialisations"
        found.insert(0, Finding("gradient", words, suspicious=bool(self.blocked)))
        self.findings = tuple(f for f in found if f is not None)
        self.wrong = tuple(deviations(failed))
        """The defaults of the settings that differ from the default recipe."""
        planned = len(self.wrong) + len(list(variations(failed, self.samples)))
        self.reruns = Reruns(failed, overfit, planned, on_control)
        self.always: tuple[Change, ...] = ()
        """Changes of every rerun: a run that was too short is rerun for longer."""

    def diagnosis(self) -> Diagnosis:
        """Return the diagnosis, in the order that `find_cause` documents."""
        for finding in self.findings:
            if finding.name == "contradictions" and finding.suspicious:
                return self._named("data problem", finding.found, "Remove the pairs that contradict one another.")
        if (gap := self.failed.result.gap) is not None:
            if gap.statistics is not None:
                return self._named("too few steps", str(gap), gap.fix)
            cause: Cause = "no gradient" if self.blocked else "unknown"
            return self._named(cause, str(gap), gap.fix, self._layers(self.blocked) if self.blocked else None)
        more = longer(self.failed)
        if more is not None:
            if (control := _if_mended(self.reruns.run(more, share=SHORT))) is not None:
                return self._fixed((more,), control)
            self.always = (more,)  # no other change could fix it in a few steps either
        return (
            self._first_fix(self.wrong)
            or self._structural()
            or self._most_helpful(self.wrong)
            or self._several()
            or self._varied()
            or self._no_gradient()
            or self._left_over()
        )

    def _run(self, *changes: Change) -> Control | None:
        return self.reruns.run(*self.always, *changes)

    def _first_fix(self, changes: tuple[Change, ...]) -> Diagnosis | None:
        """Rerun with each change alone; return the diagnosis of the first one that fixes the run."""
        for change in changes:
            if change.cause == "initialisation" and self.blocked:
                continue  # a random encoder without a gradient may fit 32 grids, and hides that it cannot learn
            if (control := _if_mended(self._run(change))) is not None:
                return self._fixed((change,), control)
        return None

    def _most_helpful(self, tried: tuple[Change, ...]) -> Diagnosis | None:
        """Rerun with the most helpful change for as many updates as the run: a shorter rerun may end too soon."""
        helped = max(tried, key=self._gain, default=None)
        if helped is None or self._gain(helped) < WORTH_MORE or self.always:
            return None
        control = _if_mended(self.reruns.run_on(helped))
        return None if control is None else self._fixed((helped,), control)

    def _varied(self) -> Diagnosis | None:
        """Rerun with settings beside the default recipe's, one by one, then the best of them with all the defaults."""
        tried = tuple(variations(self.failed, self.samples))
        found = self._first_fix(tried)
        if found is not None:
            return found
        best = max(tried, key=self._gain, default=None)
        if best is not None and self.wrong and self._gain(best) >= WORTH_MORE:
            control = _if_mended(self._run(*self.wrong, best))
            if control is not None:
                return self._fixed((best, *self.wrong), control)
        return self._most_helpful(tried)

    def _structural(self) -> Diagnosis | None:
        """Return a cause in the model itself, which no setting can fix."""
        if self.broken is not None:
            evidence = "the logits are not finite before the first update, 0 of two initialisations fix that"
            return self._named("unknown", evidence, "Look for a division, a logarithm or a root there.", self.broken)
        squashed = next((f for f in self.findings if f.name == "logits" and f.suspicious and "?" in f.found), None)
        if squashed is not None:
            fix = "Return the logits as they are: the loss takes the softmax itself."
            return self._named("loss or weights wrong", f"of the logits, {squashed.found.rstrip('?')}", fix)
        if len(self.failed.batch.grids) > 1 and not any(start.follows for start in self.starts):
            ignored = self._latent_ignored()
            if ignored is not None:
                return ignored
            if (self.starts[0].mu or 0.0) > SAME and self.blocked:
                return self._no_gradient()
            evidence = f"{len(self.failed.batch.grids)} inputs give 1 picture, under two initialisations as well"
            return self._named("output collapse", evidence, "Let the output depend on the input.")
        # a layer may be frozen or unused on purpose, and the cause another one
        return self._no_gradient() if self.cut else None

    def _no_gradient(self) -> Diagnosis | None:
        """Return the cause if at least `GOOD_PART` of the parameters have no gradient under both initialisations."""
        model, blocked = self.failed.model, self.blocked
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        if sum(sizes[name] for name in blocked) < GOOD_PART * sum(sizes.values()):
            return None
        frozen = any(not p.requires_grad for name, p in model.named_parameters() if name in blocked)
        total = sum(1 for _ in model.parameters())
        evidence = f"the gradient is 0 for {len(blocked)} of {total} parameters, under two initialisations"
        fix = "Set requires_grad there." if frozen else "Look for a detach, an argmax or a layer that is not called."
        return self._named("no gradient", evidence, fix, self._layers(blocked))

    def _latent_ignored(self) -> Diagnosis | None:
        """Return the cause if mu differs between the grids at the start, the logits do not, and no gradient is cut."""
        start = self.starts[0]
        if start.mu is None or start.mu <= SAME or start.follows:
            return None
        if self.blocked and self.decoder_reads is not False:
            return None
        evidence = (
            f"from grid to grid mu differs by {start.mu:.2g} of its size, the logits by {start.logits:.2g} of theirs"
        )
        return self._named("latent ignored", evidence, "Let the decoder read the z of each grid.")

    def _several(self) -> Diagnosis | None:
        """Return the fewest settings that fix the run together: each is taken out of all of them in turn.

        The setting with the smallest measured effect is taken out first. The cause is the first of those without which
        the run diverges or is no better than one picture.
        """
        wrong = list(self.wrong)
        control = _if_mended(self._run(*wrong)) if len(wrong) > 1 else None
        if control is None:
            recipe = whole_recipe(self.failed)
            control = _if_mended(self._run(recipe)) if wrong else None
            if control is None:
                return None
            # the recipe as a whole fixes it, its settings alone do not: the cause is the most helpful one
            helped = max(wrong, key=self._gain)
            cause = helped.cause if self._gain(helped) >= HELPED else recipe.cause
            return replace(self._fixed((recipe,), control), cause=cause)
        needed, lost = wrong, set()
        for change in reversed(wrong):
            fewer = [c for c in needed if c is not change]
            without = self._run(*fewer) if fewer else None
            if without is not None and without.mended:
                needed, control = fewer, without
            elif without is not None and (without.verdict == "DIVERGED" or (without.skill or 0.0) <= COLLAPSE_SKILL):
                lost.add(change.name)
        first = next((c for c in needed if c.name in lost), needed[0])
        return self._fixed((first, *(c for c in needed if c is not first)), control)

    def _gain(self, change: Change) -> float:
        """Return how far the change alone raised the accuracy of the worst class; 0 without a rerun."""
        control = self.reruns.known(*self.always, change)
        return 0.0 if control is None else control.worst_class - self.failed.result.accuracies.worst

    def _left_over(self) -> Diagnosis:
        """Return the most likely cause if no rerun fixed the run."""
        ignored = self._latent_ignored()
        if ignored is not None:
            return ignored
        result, target = self.failed.result, self.failed.recipe.target
        if result.not_updated.outside:
            evidence, fix = result.not_updated.notes[-1], "Keep them in an nn.ModuleList or nn.ModuleDict."
            return self._named("no gradient", evidence.partition("; ")[0], fix, result.not_updated.outside)
        faint = next((f for f in self.findings if f.name == "logits" and f.suspicious), None)
        if faint is not None:
            fix = "Scale them up: all classes are nearly equally likely."
            return self._named("loss or weights wrong", f"the logits go {faint.found}", fix)
        helped = max(self.wrong, key=self._gain, default=None)
        if helped is not None and self._gain(helped) >= HELPED:
            after = result.accuracies.worst + self._gain(helped)
            evidence = f"worst class {result.accuracies.worst:.3f} as it was, {after:.3f} with {helped.name}"
            return self._named(helped.cause, f"{evidence}, which helped most and does not suffice", helped.option)
        alone = one_grid(self.failed)
        control = None if alone is None else self.reruns.run_last(*self.always, alone)
        if alone is not None and control is not None and not control.mended:
            control = self.reruns.run_last(*self.always, alone, faster(self.failed))
        if control is not None and control.mended and result.verdict != "DIVERGED":
            evidence = (
                f"one grid alone reaches worst class {control.worst_class:.3f}, "
                f"{len(self.failed.batch.grids)} grids {result.accuracies.worst:.3f}"
            )
            return self._named("too little capacity", evidence, "Widen the model, its latent first.")
        losses = [record.loss for record in result.history]
        before = losses[-1 - len(losses) // 4]
        if before > 0 and losses[-1] < STILL_FALLING * before:
            evidence = f"the loss was {before:.4g} after three quarters of the steps and {losses[-1]:.4g} at their end"
            return self._named("too few steps", evidence, f"--iterations {4 * self.failed.recipe.iterations}")
        if result.verdict == "COLLAPSED":
            skill, variation = three_decimals(result.skill), three_decimals(result.variation)
            return self._named("output collapse", f"skill {skill}, variation {variation}; no control fixed it", None)
        if control is not None and result.verdict == "LEARNING":
            evidence = f"one grid alone reaches worst class {control.worst_class:.3f}, {target:g} is needed"
            return self._named("too little capacity", evidence, "Widen the model, its last layers first.")
        evidence = f"worst class {result.accuracies.worst:.3f}, at best {self._best():.3f} in a control"
        return self._named("unknown", evidence, None)

    def _best(self) -> float:
        found = [c.worst_class for c in self.reruns.controls if not c.name.startswith("one grid")]
        return max(found, default=self.failed.result.accuracies.worst)

    def _fixed(self, changes: tuple[Change, ...], control: Control) -> Diagnosis:
        """Return the diagnosis of changes that fixed the run; the first one names the cause."""
        result = self.failed.result
        before, after = result.accuracies.worst, control.worst_class
        name = "worst class"
        if before >= self.failed.recipe.target and result.skill is not None and control.skill is not None:
            name, before, after = "skill", result.skill, control.skill
        evidence = f"{name} {before:.3f} as it was, {after:.3f} after {control.updates} updates with {control.name}"
        return self._named(changes[0].cause, evidence, control.option)

    def _layers(self, parameters: tuple[str, ...]) -> str:
        return layers_of(parameters, (name for name, _ in self.failed.model.named_parameters()))

    def _named(self, cause: Cause, evidence: str, fix: str | None, where: str | None = None) -> Diagnosis:
        return Diagnosis(
            cause, where, evidence, fix, self.findings, tuple(self.reruns.controls), tuple(self.reruns.skipped)
        )


def _if_mended(control: Control | None) -> Control | None:
    return control if control is not None and control.mended else None

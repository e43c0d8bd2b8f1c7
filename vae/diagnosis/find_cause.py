"""From a failed run to its cause: first what can be measured on the model, then reruns, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..metrics.diagnosis import Cause, Control, Diagnosis, Finding
from ..model.state import Snapshot
from . import gradient_flow, input_target_pairs, model_probes
from .changes import Change, deviations, faster, longer, one_grid, variations, whole_recipe
from .failed_run import FailedRun
from .model_probes import SAME, Spread
from .reruns import SHORT, OnControl, Overfit, Reruns

GOOD_PART = 0.05
"""Share of the parameters."""
WORTH_MORE = 0.1
"""A change that lifts the worst class by so much in a short rerun is worth a longer one."""
HELPED = 0.3
"""A change that lifts the worst class by so much alone has to do with the cause."""
FALLING = 0.9
"""A loss that fell below this share of itself over the last quarter of the steps was not done."""


def find_cause(patient: FailedRun, overfit: Overfit, on_control: OnControl | None = None) -> Diagnosis:
    """Name the cause of a failed run, with two numbers and the change that mended it.

    In this order: pairs that no model can learn; a setting that mends the run when it alone is put back; logits that
    are no numbers or squashed, an input or a latent that is never read, layers that a gradient should reach; the fewest
    settings that mend it together; other settings than the recipe's that do; layers that are frozen or not called; too
    little capacity. The model is left as the run left it.

    Args:
        overfit: runs the model again; `vaefit.vae.overfit`.
        on_control: called with what is changed in a rerun and the record of its step.
    """
    final = Snapshot.from_model(patient.model)
    try:
        return _Search.begin(patient, overfit, on_control).diagnosis()
    finally:
        final.restore(patient.model)


@dataclass
class _Search:
    """The state of one diagnosis."""

    patient: FailedRun
    reruns: Reruns
    wrong: tuple[Change, ...]
    """The settings that are not the default recipe's, put back."""
    findings: tuple[Finding, ...]
    blocked: tuple[str, ...]
    """Parameters that no gradient reaches under any initialisation."""
    cut: bool
    """Some of them should have one: they are not frozen, and their layer is called."""
    starts: tuple[Spread, Spread]
    """What tells the grids apart at the start, and after another initialisation."""
    broken: str | None
    """The first layer whose output is not finite under any initialisation."""
    decoder_reads: bool | None
    """Other z give other logits; None where that cannot be tried."""
    samples: bool
    """The model draws something in training."""
    always: tuple[Change, ...] = ()
    """What every rerun changes: a run that was too short to show anything is run for longer."""

    @classmethod
    def begin(cls, patient: FailedRun, overfit: Overfit, on_control: OnControl | None) -> _Search:
        """Measure all that needs no training."""
        found = [
            model_probes.latent_finding(patient),
            model_probes.dead_units_finding(patient),
            model_probes.saturation_finding(patient),
            model_probes.logits_finding(patient),
            model_probes.absent_finding(patient),
            input_target_pairs.contradiction_finding(
                patient.batch, patient.adapter.classes, patient.ignore_index, patient.recipe.target
            ),
            input_target_pairs.alignment_finding(patient.batch, patient.ignore_index),
        ]
        patient.start(patient.recipe.init)
        first, samples = model_probes.spread(patient), model_probes.samples_in_training(patient)
        reads = model_probes.decoder_reads(patient)
        broken = model_probes.first_not_finite(patient)
        blocked = gradient_flow.blocked_parameters(patient)
        cut = bool(blocked) and bool(gradient_flow.cut_off(patient, blocked))
        patient.start("rescaled")
        second = model_probes.spread(patient)
        broken = broken and model_probes.first_not_finite(patient)
        if broken is not None:
            words = f"{broken}, before the first update and under two initialisations"
            found.insert(0, Finding("first output that is not finite", words, suspicious=True))
        if blocked:
            layers = gradient_flow.layers_of(blocked, patient.model)
            total = sum(1 for _ in patient.model.parameters())
            words = f"none in {layers} ({len(blocked)} of {total} parameters), under two initialisations"
            found.insert(0, Finding("gradient", words, suspicious=True))
        else:
            found.insert(0, Finding("gradient", "it reaches every parameter", suspicious=False))
        wrong = tuple(deviations(patient))
        planned = len(wrong) + len(list(variations(patient, samples)))
        return cls(
            patient=patient,
            reruns=Reruns(patient, overfit, planned, on_control),
            wrong=wrong,
            findings=tuple(f for f in found if f is not None),
            blocked=blocked,
            cut=cut,
            starts=(first, second),
            broken=broken,
            decoder_reads=reads,
            samples=samples,
        )

    def diagnosis(self) -> Diagnosis:
        """Search in the documented order."""
        for finding in self.findings:
            if finding.name == "contradictions" and finding.suspicious:
                return self._named("data problem", finding.found, "Remove the pairs that contradict one another.")
        more = longer(self.patient)
        if more is not None:
            control = self.reruns.run(more, share=SHORT)
            if control is not None and control.mended:
                return self._mended((more,), control)
            self.always = (more,)  # in a few steps nothing else could mend it either
        for change in self.wrong:
            if change.cause == "initialisation" and self.blocked:
                continue  # a random encoder without a gradient may do for 32 grids, and hides that it cannot learn
            control = self._run(change)
            if control is not None and control.mended:
                return self._mended((change,), control)
        return (
            self._structural()
            or self._most_helpful(self.wrong)
            or self._several()
            or self._varied()
            or self._no_gradient()
            or self._left_over()
        )

    def _run(self, *changes: Change) -> Control | None:
        return self.reruns.run(*self.always, *changes)

    def _most_helpful(self, tried: tuple[Change, ...]) -> Diagnosis | None:
        """The change that helped most, for as long as the run itself was: a shorter rerun may have ended too soon."""
        helped = max(tried, key=self._gain, default=None)
        if helped is None or self._gain(helped) < WORTH_MORE or self.always:
            return None
        control = self.reruns.run_on(helped)
        return self._mended((helped,), control) if control is not None and control.mended else None

    def _varied(self) -> Diagnosis | None:
        """Other settings than the default recipe's, one by one, and the best of them together with those put back."""
        hidden = "initialisation" if self.blocked else None  # see `diagnosis`
        tried = tuple(change for change in variations(self.patient, self.samples) if change.cause != hidden)
        for change in tried:
            control = self._run(change)
            if control is not None and control.mended:
                return self._mended((change,), control)
        best = max(tried, key=self._gain, default=None)
        if best is not None and self.wrong and self._gain(best) >= WORTH_MORE:
            control = self._run(*self.wrong, best)
            if control is not None and control.mended:
                return self._mended((best, *self.wrong), control)
        return self._most_helpful(tried)

    def _structural(self) -> Diagnosis | None:
        """What no setting can mend, for it is the model's own."""
        if self.broken is not None:
            evidence = "the logits are not finite before the first update, 0 of two initialisations mend that"
            return self._named("unknown", evidence, "Look for a division, a logarithm or a root there.", self.broken)
        squashed = next((f for f in self.findings if f.name == "logits" and f.suspicious and "?" in f.found), None)
        if squashed is not None:
            fix = "Return the logits as they are: the loss takes the softmax itself."
            return self._named("loss or weights wrong", f"of the logits, {squashed.found.rstrip('?')}", fix)
        if len(self.patient.batch.grids) > 1 and not any(start.follows for start in self.starts):
            ignored = self._latent_ignored()
            if ignored is not None:
                return ignored
            if (self.starts[0].mu or 0.0) > SAME and self.blocked:
                return self._no_gradient()
            evidence = f"{len(self.patient.batch.grids)} inputs give 1 picture, under two initialisations as well"
            return self._named("output collapse", evidence, "Let the output depend on the input.")
        # what is frozen or not called may be meant so, and something else the cause
        return self._no_gradient() if self.cut else None

    def _no_gradient(self) -> Diagnosis | None:
        """A good part of the model has no gradient under any initialisation; a table that is frozen is none."""
        model, blocked = self.patient.model, self.blocked
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        if sum(sizes[name] for name in blocked) < GOOD_PART * sum(sizes.values()):
            return None
        frozen = any(not p.requires_grad for name, p in model.named_parameters() if name in blocked)
        total = sum(1 for _ in model.parameters())
        evidence = f"the gradient is 0 for {len(blocked)} of {total} parameters, under two initialisations"
        fix = "Set requires_grad there." if frozen else "Look for a detach, an argmax or a layer that is not called."
        return self._named("no gradient", evidence, fix, gradient_flow.layers_of(blocked, model))

    def _latent_ignored(self) -> Diagnosis | None:
        """mu tells the grids apart at the start, the logits do not, and it is not that the way from mu is cut."""
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
        """Where no single setting mends it: the fewest that do together, found by taking each out of all of them.

        What was measured to matter least is taken out first. The cause is the first of those without which the run
        ends worst.
        """
        wrong = list(self.wrong)
        control = self._run(*wrong) if len(wrong) > 1 else None
        if control is None or not control.mended:
            healthy = whole_recipe(self.patient)
            control = self._run(healthy) if wrong else None
            return self._recipe_mends(healthy, control) if control is not None and control.mended else None
        needed, lost = wrong, dict.fromkeys((change.name for change in wrong), "LEARNING")
        for change in reversed(wrong):
            fewer = [c for c in needed if c is not change]
            without = self._run(*fewer) if fewer else None
            if without is not None and without.mended:
                needed, control = fewer, without
            elif without is not None:
                lost[change.name] = without.verdict
        first = next((c for c in needed if lost[c.name] != "LEARNING"), needed[0])
        return self._mended((first, *(c for c in needed if c is not first)), control)

    def _recipe_mends(self, healthy: Change, control: Control) -> Diagnosis:
        """The default recipe as a whole mends it, what was told apart does not: the cause is what helped most."""
        helped = max(self.wrong, key=self._gain)
        cause = helped.cause if self._gain(helped) >= HELPED else healthy.cause
        return replace(self._mended((healthy,), control), cause=cause)

    def _gain(self, change: Change) -> float:
        """How far the change alone lifted the worst class; 0 where it was not tried."""
        control = self.reruns.known(*self.always, change)
        return 0.0 if control is None else control.worst_class - self.patient.result.accuracies.worst

    def _left_over(self) -> Diagnosis:
        """Nothing mended it."""
        ignored = self._latent_ignored()
        if ignored is not None:
            return ignored
        result, target = self.patient.result, self.patient.recipe.target
        faint = next((f for f in self.findings if f.name == "logits" and f.suspicious), None)
        if faint is not None:
            fix = "Scale them up: all classes are as good as equally likely."
            return self._named("loss or weights wrong", f"the logits go {faint.found}", fix)
        helped = max(self.wrong, key=self._gain, default=None)
        if helped is not None and self._gain(helped) >= HELPED:
            after = result.accuracies.worst + self._gain(helped)
            evidence = f"worst class {result.accuracies.worst:.3f} as it was, {after:.3f} with {helped.name}"
            return self._named(helped.cause, f"{evidence}, which helped most and does not suffice", helped.option)
        alone = one_grid(self.patient)
        control = None if alone is None else self.reruns.run_last(*self.always, alone)
        if alone is not None and control is not None and not control.mended:
            control = self.reruns.run_last(*self.always, alone, faster(self.patient))
        if control is not None and control.mended and result.verdict != "DIVERGED":
            evidence = (
                f"one grid alone reaches worst class {control.worst_class:.3f}, "
                f"{len(self.patient.batch.grids)} grids {result.accuracies.worst:.3f}"
            )
            return self._named("too little capacity", evidence, "Widen the model, its latent first.")
        losses = [record.loss for record in result.history]
        before = losses[-1 - len(losses) // 4]
        if before > 0 and losses[-1] < FALLING * before:
            evidence = f"the loss was {before:.4g} after three quarters of the steps and {losses[-1]:.4g} at their end"
            return self._named("too few steps", evidence, f"--iterations {4 * self.patient.recipe.iterations}")
        if result.verdict == "COLLAPSED":
            evidence = f"skill {_number(result.skill)}, retrieval {_number(result.retrieval)}; no control mended it"
            return self._named("output collapse", evidence, None)
        if control is not None and result.verdict == "LEARNING":
            evidence = f"one grid alone reaches worst class {control.worst_class:.3f}, {target:g} is needed"
            return self._named("too little capacity", evidence, "Widen the model, its last layers first.")
        evidence = f"worst class {result.accuracies.worst:.3f}, at best {self._best():.3f} in a control"
        return self._named("unknown", evidence, None)

    def _best(self) -> float:
        found = [c.worst_class for c in self.reruns.controls if not c.name.startswith("one grid")]
        return max(found, default=self.patient.result.accuracies.worst)

    def _mended(self, changes: tuple[Change, ...], control: Control) -> Diagnosis:
        """The changes mended it; the first names the cause."""
        result = self.patient.result
        before, after = result.accuracies.worst, control.worst_class
        name = "worst class"
        if before >= self.patient.recipe.target and result.skill is not None and control.skill is not None:
            name, before, after = "skill", result.skill, control.skill
        evidence = f"{name} {before:.3f} as it was, {after:.3f} after {control.updates} updates with {control.name}"
        return self._named(changes[0].cause, evidence, control.option)

    def _named(self, cause: Cause, evidence: str, fix: str | None, where: str | None = None) -> Diagnosis:
        return Diagnosis(
            cause, where, evidence, fix, self.findings, tuple(self.reruns.controls), tuple(self.reruns.skipped)
        )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"

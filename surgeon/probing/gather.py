"""What the scorers need of a model, measured once and kept per prompt where it can be."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surgeon.block import Block
from surgeon.errors import UsageError
from surgeon.probing.jvp import sensitivities
from surgeon.probing.passes import SecondPass
from surgeon.probing.plans import compare_predictions, run_candidates
from surgeon.probing.prompts import SETS, load_prompts
from surgeon.probing.subject import Subject
from surgeon.probing.sweep import Report
from surgeon.score import Evidence, Scorer
from surgeon.stats import BlockStats, LayerStats, PlanStats, PromptMeans

SURE = 0.05
"""Mean entropy in nats up to which the surer half of the prompts is called sure. On the
planted demo model the label-free scores found the block with 0.001 to 0.011 and missed it
with 0.045 and more."""

PER_PROMPT = ("layers", "groups", "deltas", "plans")
"""Evidence that is kept per prompt, so that scoring can be repeated on subsets."""


@dataclass(frozen=True, eq=False)
class Measured:
    """All measurements of one probe.

    Args:
        means: position means per prompt.
        texts: the prompts.
        needs: what the scorers read.
        plans: per prompt, where a scorer needs it.
        passes: over all prompts, where a scorer needs it.
        jacobians: over all prompts, where a scorer needs it.
    """

    means: PromptMeans
    texts: Sequence[str]
    needs: frozenset[str]
    plans: PlanStats | None = None
    passes: BlockStats | None = None
    jacobians: BlockStats | None = None

    def evidence(self, prompts: Sequence[int] | None = None) -> Evidence:
        """What the scorers see, over all prompts or over some of them (repeats allowed).

        Raises:
            UsageError: reasoning and general prompts are needed and one kind is missing.
        """
        members = range(len(self.texts)) if prompts is None else list(prompts)
        means = self.means if prompts is None else self.means.subset(members)
        plans = self.plans
        if plans is not None and prompts is not None:
            plans = plans.subset(members)
        deltas = None
        if "deltas" in self.needs:
            deltas = np.diff(means.means, axis=0).mean(axis=1, dtype=np.float64)
        return Evidence(
            layers=means.layer_stats(),
            groups=self._groups(members) if "groups" in self.needs else None,
            deltas=deltas,
            plans=plans,
            passes=self.passes if prompts is None else None,
            jacobians=self.jacobians if prompts is None else None,
        )

    def _groups(self, members: Sequence[int]) -> dict[str, LayerStats]:
        general = set(load_prompts("general").texts)
        kinds: dict[str, list[int]] = {"reasoning": [], "general": []}
        for at in members:
            kinds["general" if self.texts[at] in general else "reasoning"].append(at)
        for kind, some in kinds.items():
            if not some:
                raise UsageError(
                    "scorer `contrastive` compares reasoning with general prompts, "
                    f"and there are no {kind} ones",
                    hint="use --prompts default",
                )
        return {kind: self.means.subset(some).layer_stats() for kind, some in kinds.items()}

    def notes(self) -> list[str]:
        """What should be known about the evidence before it is believed."""
        if self.plans is None or not self.plans.sure_entropy > SURE:
            return []
        return [
            "label-free scores lean on prompts whose answer the model is sure of, and on the "
            f"surer half its mean entropy is {self.plans.sure_entropy:.2f} nats (over {SURE}): "
            "use prompts that end where an answer is due, easy ones among them"
        ]

    def languages(self) -> dict[str, list[int]]:
        """Language -> indices of the bundled prompts in it; only languages that occur."""
        found = {}
        for name in SETS:
            language = name.partition("reasoning-")[2]
            if language:
                texts = set(load_prompts(name).texts)
                found[language] = [at for at, text in enumerate(self.texts) if text in texts]
        return {language: members for language, members in found.items() if members}


def measure(
    subject: Subject,
    means: PromptMeans,
    scorers: Sequence[Scorer],
    blocks: Sequence[Block],
    texts: Sequence[str],
    seed: int,
    report: Report,
) -> Measured:
    """Measure what the scorers need beyond the position means.

    Raises:
        SurgeonError: a derivative that a scorer needs does not exist.
    """
    needs = frozenset(scorer.needs for scorer in scorers)
    plans, passes, jacobians = None, None, None
    if needs & {"plans", "passes"}:
        watch = SecondPass()
        finals = run_candidates(
            subject.layers,
            subject.batches,
            blocks,
            watch=watch if "passes" in needs else None,
            to_the_end="plans" in needs,
            report=report,
        )
        if "plans" in needs:
            plans = compare_predictions(subject.runner, finals, blocks, means.depth)
        if "passes" in needs:
            passes = watch.stats(means.depth)
    if "jacobians" in needs:
        jacobians = sensitivities(
            subject.layers, subject.runner, subject.batches, blocks, seed=seed, report=report
        )
    return Measured(means, texts, needs, plans, passes, jacobians)

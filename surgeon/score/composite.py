"""Composite: half the stability score and half the anomaly score.

CircuitProbe, arXiv 2604.00716 (released program, `composite`): the mean of the two. Its
documentation speaks of the larger of the two; its code takes the mean, and so does this.
"""

from collections.abc import Sequence

from surgeon.block import Block
from surgeon.score.anomaly import anomaly_terms
from surgeon.score.base import Evidence, Scorer, Terms, weighted
from surgeon.score.stability import stability_terms


def composite_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """The terms of both scores, halved, as `stability.*` and `anomaly.*`."""
    pairs = zip(stability_terms(evidence, blocks), anomaly_terms(evidence, blocks), strict=True)
    return [
        weighted(stable, 0.5, "stability") | weighted(odd, 0.5, "anomaly") for stable, odd in pairs
    ]


COMPOSITE = Scorer(
    key="composite",
    title="mean of stability and anomaly",
    reference="arXiv 2604.00716 (CircuitProbe), composite score",
    needs="layers",
    circuit="mixed",
    terms=composite_terms,
    in_reference=True,
)

"""The scorers by name, in the order in which they are listed and documented."""

from collections.abc import Sequence

from surgeon.errors import UnknownName
from surgeon.score.anomaly import ANOMALY
from surgeon.score.base import Evidence, Ranking, Scorer, rank_with
from surgeon.score.boundary import BOUNDARY
from surgeon.score.composite import COMPOSITE
from surgeon.score.consensus import CONSENSUS
from surgeon.score.contrastive import CONTRASTIVE
from surgeon.score.decisiveness import DECISIVENESS
from surgeon.score.equilibrium import EQUILIBRIUM
from surgeon.score.jacobian import JACOBIAN
from surgeon.score.mahalanobis import MAHALANOBIS
from surgeon.score.stability import STABILITY
from surgeon.stats import LayerStats, PlanStats

SCORERS: dict[str, Scorer] = {
    scorer.key: scorer
    for scorer in (
        STABILITY,
        ANOMALY,
        BOUNDARY,
        CONTRASTIVE,
        COMPOSITE,
        JACOBIAN,
        MAHALANOBIS,
        EQUILIBRIUM,
        DECISIVENESS,
        CONSENSUS,
    )
}


def get_scorer(name: str) -> Scorer:
    """The scorer of that name.

    Raises:
        UnknownName: there is none; the message lists them.
    """
    if name not in SCORERS:
        raise UnknownName("scorer", name, SCORERS)
    return SCORERS[name]


def rank(
    evidence: Evidence | LayerStats | PlanStats,
    scorer: str | Scorer,
    sizes: Sequence[int] = (3, 4, 5),
    compat: str | None = None,
) -> Ranking:
    """Rank all blocks of the given sizes under one scorer.

    Args:
        evidence: what was measured; bare statistics stand for evidence of nothing else.
        scorer: a name of `SCORERS`, or a scorer.
        sizes: block sizes in layers.
        compat: None ranks only blocks for which every term is defined; `circuitprobe`
            gives the ranking of the reference program.

    Raises:
        UnknownName: no such scorer.
        UsageError: nothing fits the sizes, or what the scorer needs was not measured.
    """
    if isinstance(evidence, LayerStats):
        evidence = Evidence(layers=evidence)
    elif isinstance(evidence, PlanStats):
        evidence = Evidence(plans=evidence)
    chosen = get_scorer(scorer) if isinstance(scorer, str) else scorer
    return rank_with(evidence, chosen, sizes, compat)

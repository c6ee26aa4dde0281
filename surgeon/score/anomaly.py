"""Anomaly: layers that do more than the average layer of the model.

CircuitProbe, arXiv 2604.00716 (released program, `anomaly`): the sum of the block's
z-scores z(q) = (mean over the block - mean over all layers) / (std over all + 1e-10) of

    representation_change - self_similarity + cross_example_variance + representation_rank

It finds late blocks: magnitude circuits in the paper's words.
"""

from collections.abc import Sequence

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms, zscore_term
from surgeon.stats import LayerStats


def anomaly_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `change`, `dissimilarity`, `variance` and `rank` of each block."""
    assert evidence.layers is not None
    stats = evidence.layers
    return [layer_anomaly(stats, block) for block in blocks]


def layer_anomaly(stats: LayerStats, block: Block) -> Terms:
    """The four z-scores of one block, with their signs."""
    return {
        "change": zscore_term(stats, "representation_change", block),
        "dissimilarity": zscore_term(stats, "self_similarity", block, -1.0),
        "variance": zscore_term(stats, "cross_example_variance", block),
        "rank": zscore_term(stats, "representation_rank", block),
    }


ANOMALY = Scorer(
    key="anomaly",
    title="the layers stand out: large, diverse, input-dependent change",
    reference="arXiv 2604.00716 (CircuitProbe), anomaly score",
    needs="layers",
    circuit="magnitude",
    terms=anomaly_terms,
    in_reference=True,
)

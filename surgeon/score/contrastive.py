"""Contrastive: layers that treat reasoning prompts differently from general ones.

CircuitProbe, arXiv 2604.00716 (released program, `contrastive`): 1/2 z(contrast) + 1/2
anomaly on the reasoning prompts. The contrast of a layer is the mean of |r - g| /
max(|r|, |g|, 1e-10) over representation change, norm growth, cross-example variance and,
where it was measured on both, attention entropy, and of |r - g| for self-similarity, with
r and g its statistics on the two sets.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.anomaly import layer_anomaly
from surgeon.score.base import Evidence, Scorer, Terms, weighted, zscore
from surgeon.stats import Floats, LayerStats

_RELATIVE = ("representation_change", "norm_growth", "cross_example_variance")


def contrastive_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Term `contrast` and the halved anomaly terms of each block."""
    groups = evidence.groups or {}
    reasoning, general = groups["reasoning"], groups["general"]
    contrast = layer_contrast(reasoning, general)
    rows: list[Terms] = []
    for block in blocks:
        half: float | str = "a statistic of the contrast was not measured"
        if not np.isnan(contrast).any():
            half = 0.5 * zscore(contrast, block)
        rows.append({"contrast": half} | weighted(layer_anomaly(reasoning, block), 0.5, "anomaly"))
    return rows


def layer_contrast(reasoning: LayerStats, general: LayerStats) -> Floats:
    """(N,) how differently each layer behaves on the two sets; 0 is not at all."""
    parts = [_relative(reasoning.row(name), general.row(name)) for name in _RELATIVE]
    parts.append(np.abs(reasoning.row("self_similarity") - general.row("self_similarity")))
    total = np.asarray(sum(parts))
    r, g = reasoning.row("attention_entropy"), general.row("attention_entropy")
    both = (r > 0) & (g > 0)  # NaN is not above 0
    extra = np.where(both, _relative(r, g), 0.0)
    return np.asarray((total + extra) / (len(parts) + both))


def _relative(r: Floats, g: Floats) -> Floats:
    return np.asarray(np.abs(r - g) / np.maximum(np.maximum(np.abs(r), np.abs(g)), 1e-10))


CONTRASTIVE = Scorer(
    key="contrastive",
    title="behaves differently on reasoning than on general prompts",
    reference="arXiv 2604.00716 (CircuitProbe), contrastive score",
    needs="groups",
    circuit="contrastive",
    terms=contrastive_terms,
    in_reference=True,
)

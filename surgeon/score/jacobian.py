"""Jacobian: blocks that transform their input and matter for the answer, to first order.

    jacobian   mean over prompts of |d y / d x|_F, with x and y the block's mean input and
               output over positions, all positions shifted alike; the Frobenius norm is
               estimated from forward-mode products with random probes (Hutchinson, 1989)
    taylor     mean over prompts of |<d L / d Y, Y - X>|, with L the log-likelihood of the
               prompt's last token and Y - X what the block adds to its input: the
               first-order change of L if the block added nothing (Molchanov et al.,
               arXiv 1906.10771)

score = z(log jacobian) + z(log taylor), each over the blocks of the same size. The
combination is this project's own.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms

NOT_RUN = "no derivative was taken of this block"


def jacobian_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `transform` and `effect` of each block."""
    assert evidence.jacobians is not None
    values = evidence.jacobians.values
    return [
        {
            "transform": _standing(values["jacobian"], block),
            "effect": _standing(values["taylor"], block),
        }
        for block in blocks
    ]


def _standing(values: Mapping[Block, float], block: Block) -> float | str:
    """z-score of a block's log value among the blocks of its size."""
    if block not in values:
        return NOT_RUN
    if not values[block] > 0:
        return "the block has no effect that a derivative can see"
    same = [v for other, v in values.items() if len(other) == len(block) and v > 0]
    logs = np.log(same)
    return float((np.log(values[block]) - logs.mean()) / (logs.std() + 1e-10))


JACOBIAN = Scorer(
    key="jacobian",
    title="sensitive to its input, and the answer to its output",
    reference="Hutchinson, 1989; arXiv 1906.10771 (Taylor); combination of this project",
    needs="jacobians",
    circuit="sensitivity",
    terms=jacobian_terms,
)

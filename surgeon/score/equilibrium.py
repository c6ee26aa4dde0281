"""Equilibrium: a block that can be iterated: it settles, it does something, it stays readable.

For a block f with input x, over all prompt tokens:

    contraction    r = mean |f(f(x)) - f(x)| / |f(x) - x|     below 1: a second pass does less
    activity       a = mean |f(x) - x| / |x|
    compatibility  linear CKA of f(f(x)) with f(x)            (Kornblith et al., arXiv 1905.00414)

score = (1 - r) + min(0, log(a / p)) + CKA, where the plateau p is the median activity of
the blocks of the same size: a block is charged for doing less than usual, and not paid for
doing more. The combination is this project's own; no paper claims it.
"""

from collections.abc import Sequence

import numpy as np

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms

NOT_RUN = "the block was not run on its own output"


def equilibrium_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `settling`, `activity` (never positive) and `compatibility` of each block."""
    assert evidence.passes is not None
    values = evidence.passes.values
    contraction, activity = values["contraction"], values["activity"]
    rows: list[Terms] = []
    for block in blocks:
        if block not in contraction:
            rows.append({"settling": NOT_RUN})
            continue
        same = [value for other, value in activity.items() if len(other) == len(block)]
        plateau = float(np.median(same))
        busy = activity[block] > 0 and plateau > 0
        rows.append(
            {
                "settling": 1.0 - contraction[block],
                "activity": min(0.0, float(np.log(activity[block] / plateau)))
                if busy
                else "the block does nothing",
                "compatibility": values["compatibility"][block],
            }
        )
    return rows


EQUILIBRIUM = Scorer(
    key="equilibrium",
    title="a second pass settles, acts, and stays readable downstream",
    reference="arXiv 1905.00414 (linear CKA); combination of this project",
    needs="passes",
    circuit="iterable",
    terms=equilibrium_terms,
)

"""Decisiveness: does running the block twice make the model surer where it was unsure?

Needs no labels. The prompts end where an answer is due. With H_b and H_c the entropies of
the base's and the candidate's next-token distributions after a prompt, in nats:

    score = mean of (H_b - H_c) over the unsure half - 4 mean KL(base || candidate) over the rest

The unsure half are the prompts with H_b at or above its median. The second term charges
for disturbing what the base already knows. The size of the score matters too: near 0, no
block is worth running twice. A late block that sharpens every distribution, right or
wrong, fools it; `consensus` is the answer to that.
"""

from collections.abc import Sequence

from surgeon.block import Block
from surgeon.score.base import Evidence, Scorer, Terms

DAMAGE_WEIGHT = 4.0

NOT_A_CANDIDATE = "the block was not among the candidates that were run"


def decisiveness_terms(evidence: Evidence, blocks: Sequence[Block]) -> list[Terms]:
    """Terms `sharpening` and `damage` (never positive) of each block."""
    plans = evidence.plans
    assert plans is not None
    unsure = plans.unsure
    if unsure.all():
        return [{"damage": "the base is equally unsure on every prompt"} for _ in blocks]
    sharpening = (plans.base_entropy - plans.entropy)[:, unsure].mean(axis=1)  # (C,)
    damage = -DAMAGE_WEIGHT * plans.divergence[:, ~unsure].mean(axis=1)
    at = {block: index for index, block in enumerate(plans.candidates)}
    return [
        {"sharpening": float(sharpening[at[block]]), "damage": float(damage[at[block]])}
        if block in at
        else {"sharpening": NOT_A_CANDIDATE}
        for block in blocks
    ]


DECISIVENESS = Scorer(
    key="decisiveness",
    title="running it twice makes the model surer where it was unsure",
    reference="label-free score of this project; see surgeon/score/decisiveness.py",
    needs="plans",
    circuit="label-free",
    terms=decisiveness_terms,
)

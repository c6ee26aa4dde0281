"""What a scorer is, what it reads, and what a ranking says.

A scorer gives every block named terms, and a block's score is their sum: weights and signs
are already inside the terms. A term that is not defined for a block says why instead of
being a number. A ranking compares like with like: only blocks with every term are ranked,
the others are listed with the reason. The reference program instead counts a missing term
as 0, so that blocks near the ends compete on fewer terms; `compat="circuitprobe"` does that.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from surgeon.block import Block, all_blocks
from surgeon.errors import UnknownName, UsageError
from surgeon.record import Record
from surgeon.stats import BlockStats, Floats, LayerStats, PlanStats

CIRCUITPROBE = "circuitprobe"

Terms = dict[str, float | str]
"""Term name -> its contribution to the score, or why it is not defined."""

Needs = Literal["layers", "groups", "deltas", "passes", "jacobians", "plans"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything a probe may have measured; a scorer reads the part it `needs`.

    Args:
        layers: statistics over all prompts.
        groups: statistics over the prompts of one kind: `reasoning` and `general`.
        deltas: (N, D) mean over prompts of each layer's mean output minus mean input.
        passes: what a second pass of each block over its own output does.
        jacobians: first-order sensitivities of each block.
        plans: next-token distributions of the candidates.
    """

    layers: LayerStats | None = None
    groups: Mapping[str, LayerStats] | None = None
    deltas: Floats | None = None
    passes: BlockStats | None = None
    jacobians: BlockStats | None = None
    plans: PlanStats | None = None

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        for part in (self.layers, self.plans, self.passes, self.jacobians):
            if part is not None:
                return part.depth
        if self.deltas is not None:
            return len(self.deltas)
        raise UsageError("the evidence is empty: nothing was measured")


@dataclass(frozen=True)
class Scorer:
    """A way to rank blocks.

    Args:
        key: its name everywhere.
        title: one line for a table.
        reference: the paper or section that defines it.
        needs: which part of `Evidence` it reads.
        circuit: what kind of block it looks for, in the words of the paper.
        terms: evidence and blocks -> the terms of each block.
        in_reference: whether the released CircuitProbe program has it.
    """

    key: str
    title: str
    reference: str
    needs: Needs
    circuit: str
    terms: Callable[[Evidence, Sequence[Block]], list[Terms]]
    in_reference: bool = False


class BlockScore(Record):
    """A ranked block: `score` is the sum of `terms`; `depth_share` is its centre in 0..1."""

    block: Block
    score: float
    terms: dict[str, float]
    depth_share: float


class Unranked(Record):
    """A block that was not ranked, and why."""

    block: Block
    reason: str


class Ranking(Record):
    """Blocks from best to worst under one scorer, and those it could not rank.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/probe.json").read_text()
        >>> found = surgeon.ProbeResult.from_dict(json.loads(text))
        >>> ranking = found.ranking("anomaly")
        >>> ranking.position(ranking.best.block)
        1
    """

    SCHEMA: ClassVar[str] = "surgeon.ranking/1"

    scorer: str
    circuit: str
    depth: int
    compat: str | None = None
    entries: tuple[BlockScore, ...]
    unranked: tuple[Unranked, ...] = ()

    @property
    def best(self) -> BlockScore | None:
        """The first block, or None if no block could be ranked."""
        return self.entries[0] if self.entries else None

    def position(self, block: Block) -> int | None:
        """1 for the best block; None if the block is not ranked."""
        order = [entry.block for entry in self.entries]
        return order.index(block) + 1 if block in order else None

    def alternates(self, within: int = 2) -> list[BlockScore]:
        """The other ranked blocks within some layers of the best, best first.

        The paper's claim for its predictions is "match or within 2 layers".
        """
        if self.best is None:
            return []
        first = self.best.block
        return [e for e in self.entries[1:] if e.block.distance(first) <= within]


def rank_with(
    evidence: Evidence, scorer: Scorer, sizes: Sequence[int], compat: str | None = None
) -> Ranking:
    """Rank all blocks of the given sizes.

    Args:
        evidence: what was measured.
        scorer: how to score.
        sizes: block sizes in layers.
        compat: None to rank like with like, `circuitprobe` to count missing terms as 0.

    Raises:
        UsageError: no block has such a size, what the scorer needs was not measured, or
            the reference program has no such scorer.
    """
    blocks = candidate_blocks(evidence.depth, sizes)
    if getattr(evidence, scorer.needs) is None:
        raise UsageError(f"scorer `{scorer.key}` needs `{scorer.needs}`, which was not measured")
    if compat:
        evidence = _as_reference(evidence, scorer, compat)
    ranked, unranked = [], []
    for block, terms in zip(blocks, scorer.terms(evidence, blocks), strict=True):
        defined = {name: term for name, term in terms.items() if not isinstance(term, str)}
        reasons = [term for term in terms.values() if isinstance(term, str)]
        reasons += [f"{n} is not a number" for n, term in defined.items() if math.isnan(term)]
        if reasons and not compat:
            unranked.append(Unranked(block=block, reason="; ".join(dict.fromkeys(reasons))))
        else:
            ranked.append(_entry(block, defined, evidence.depth))
    # Python's sort is stable: ties keep the order of `all_blocks`, by size, then start.
    ranked.sort(key=lambda entry: -entry.score)
    return Ranking(
        scorer=scorer.key,
        circuit=scorer.circuit,
        depth=evidence.depth,
        compat=compat,
        entries=tuple(ranked),
        unranked=tuple(unranked),
    )


def _as_reference(evidence: Evidence, scorer: Scorer, compat: str) -> Evidence:
    """The evidence as the reference program sees it: 0.0 for what was not measured."""
    check_compat(compat)
    if not scorer.in_reference or evidence.layers is None:
        raise UsageError(
            f"{CIRCUITPROBE} has no scorer `{scorer.key}`",
            hint="leave out --compat, or choose a scorer of the reference program",
        )
    layers = reference_view(evidence.layers)
    groups = {key: reference_view(group) for key, group in (evidence.groups or {}).items()}
    return Evidence(layers=layers, groups=groups or None)


def check_compat(compat: str | None) -> None:
    """Refuse a compatibility mode that does not exist.

    Raises:
        UnknownName: it is neither None nor `circuitprobe`.
    """
    if compat is not None and compat != CIRCUITPROBE:
        raise UnknownName("compat mode", compat, [CIRCUITPROBE])


def reference_view(stats: LayerStats) -> LayerStats:
    """Statistics as the reference program holds them.

    Missing is 0.0, and the forward similarity is that of the first prompt alone.
    """
    values = dict(stats.filled().values)
    values["forward_similarity"] = values["forward_similarity_first"]
    return stats.model_copy(update={"values": values})


def candidate_blocks(depth: int, sizes: Sequence[int]) -> list[Block]:
    """Every block of the given sizes.

    Raises:
        UsageError: a size below 1, or no size that fits.
    """
    if not sizes or min(sizes) < 1:
        raise UsageError(f"block sizes {list(sizes)}: expected sizes of at least 1 layer")
    blocks = all_blocks(depth, sizes)
    if not blocks:
        raise UsageError(
            f"no block of {min(sizes)} layers or more fits: the model has {depth} layers"
        )
    return blocks


def _entry(block: Block, terms: dict[str, float], depth: int) -> BlockScore:
    share = (block.start + block.stop) / (2 * depth)
    return BlockScore(block=block, score=float(sum(terms.values())), terms=terms, depth_share=share)


def zscore(values: Floats, block: Block) -> float:
    """(mean over the block - mean over all) / (population standard deviation + 1e-10)."""
    return float((values[block.start : block.stop].mean() - values.mean()) / (values.std() + 1e-10))


def zscore_term(stats: LayerStats, name: str, block: Block, weight: float = 1.0) -> float | str:
    """A weighted `zscore` of one statistic, or why there is none."""
    values = stats.row(name)
    if np.isnan(values).any():
        return stats.why_missing(name)
    return weight * zscore(values, block)


def weighted(terms: Terms, weight: float, prefix: str) -> Terms:
    """Terms of one scorer as part of another."""
    return {
        f"{prefix}.{name}": term if isinstance(term, str) else weight * term
        for name, term in terms.items()
    }

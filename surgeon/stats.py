"""What a probe measures, as plain numbers: no torch, no model.

Two kinds of evidence. `PromptMeans` holds the position means of the hidden states at every
depth of the stack, from which every per-layer statistic follows (`LayerStats`). `PlanStats`
holds what the next-token distributions of candidate models say about each other.

Statistics follow the CircuitProbe paper (arXiv 2604.00716) and its released program. With
T real tokens, X and Y the input and output of a layer (T, D), and x, y their means over
the T positions:

    representation_change    |y - x|                              mean over prompts
    self_similarity          cos(x, y)                            mean over prompts
    norm_growth              |y| / |x|, prompts with |x| > 1e-8   mean over prompts
    attention_entropy        -sum p log p of each attention row   mean over heads, rows, prompts
    cross_example_variance   population variance of y over prompts, mean over dimensions
    representation_rank      exp(entropy of s / sum s), s the singular values of the
                             (prompts, D) matrix of y - x, not centred, first 50 prompts
    forward_similarity       cos(y of this layer, y of the next)  mean over prompts
    forward_similarity_first the same for the first prompt alone, as the program has it

Sums are taken in float64. Not measured is NaN and `missing` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from surgeon.block import Block
from surgeon.errors import UsageError
from surgeon.record import Measured, Record

Floats = npt.NDArray[np.float64]

RANK_PROMPTS = 50
"""How many prompts the effective rank looks at, as in the reference."""

MIN_RANK_PROMPTS = 5
"""Below this many prompts the effective rank is not measured, as in the reference."""

STATISTICS = (
    "representation_change",
    "self_similarity",
    "norm_growth",
    "attention_entropy",
    "cross_example_variance",
    "representation_rank",
    "forward_similarity",
    "forward_similarity_first",
)


class LayerStats(Record):
    """One number per statistic and layer.

    Args:
        depth: number of decoder layers.
        prompts: how many prompts were measured.
        tokens: real tokens in all of them.
        values: statistic name -> `depth` numbers; NaN is not measured.
        missing: statistic name -> why some or all of its layers are NaN.

    Example:
        >>> import surgeon
        >>> nan = float("nan")
        >>> values = {"norm_growth": (1.2, 1.1, nan)}
        >>> stats = surgeon.LayerStats(depth=3, prompts=2, tokens=40, values=values)
        >>> stats.row("norm_growth")
        array([1.2, 1.1, nan])
    """

    SCHEMA: ClassVar[str] = "surgeon.layerstats/1"

    depth: int
    prompts: int
    tokens: int
    values: dict[str, tuple[Measured, ...]]
    missing: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> "LayerStats":
        for name, row in self.values.items():
            if len(row) != self.depth:
                raise ValueError(f"`{name}` has {len(row)} numbers for {self.depth} layers")
        return self

    def row(self, name: str) -> Floats:
        """One statistic as an array of `depth` float64; NaN where it was not measured."""
        if name not in self.values:
            return np.full(self.depth, np.nan)
        return np.asarray(self.values[name], dtype=np.float64)

    def why_missing(self, name: str) -> str:
        """Why a statistic has no number, in words."""
        return self.missing.get(name, f"{name} was not measured")

    def filled(self) -> "LayerStats":
        """Every missing number as 0.0: what the released program computes with."""
        values = {name: tuple(np.nan_to_num(self.row(name)).tolist()) for name in STATISTICS}
        return self.model_copy(update={"values": values})


@dataclass(frozen=True, eq=False)
class PromptMeans:
    """Position means of the hidden states, per prompt: the raw evidence of a probe.

    Args:
        means: (N + 1, P, D) float32; `means[l]` is the input of layer l, `means[N]` the
            output of the last layer.
        tokens: (P,) real tokens per prompt.
        entropy: (N, P) attention entropy, or None where it was not measured.
        no_entropy: why `entropy` is None.
    """

    means: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.int64]
    entropy: Floats | None = None
    no_entropy: str = "attention entropy was not asked for"

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.means) - 1

    def subset(self, prompts: Sequence[int]) -> "PromptMeans":
        """The evidence of some prompts only, in the given order; repeats are allowed."""
        at = np.asarray(prompts, dtype=np.int64)
        entropy = None if self.entropy is None else self.entropy[:, at]
        return replace(self, means=self.means[:, at], tokens=self.tokens[at], entropy=entropy)

    def layer_stats(self) -> LayerStats:
        """Every statistic of every layer."""
        values = {name: np.full(self.depth, np.nan) for name in STATISTICS}
        missing: dict[str, str] = {}
        for layer in range(self.depth):
            x = self.means[layer].astype(np.float64)  # (P, D)
            y = self.means[layer + 1].astype(np.float64)
            for name, value in _pair_statistics(x, y).items():
                values[name][layer] = value
            if layer + 1 < self.depth:
                similar = cosine(y, self.means[layer + 2].astype(np.float64))
                values["forward_similarity"][layer] = similar.mean()
                values["forward_similarity_first"][layer] = similar[0]
        last = "the last layer has no next one"
        missing["forward_similarity"] = missing["forward_similarity_first"] = last
        if self.entropy is None:
            missing["attention_entropy"] = self.no_entropy
        else:
            values["attention_entropy"] = self.entropy.mean(axis=1)
        if len(self.tokens) < MIN_RANK_PROMPTS:
            missing["representation_rank"] = (
                f"representation_rank needs at least {MIN_RANK_PROMPTS} prompts, "
                f"got {len(self.tokens)}"
            )
        if np.isnan(values["norm_growth"]).any():
            missing["norm_growth"] = "the layer's mean input is 0 on every prompt"
        return LayerStats(
            depth=self.depth,
            prompts=len(self.tokens),
            tokens=int(self.tokens.sum()),
            values={name: tuple(row.tolist()) for name, row in values.items()},
            missing=missing,
        )


def _pair_statistics(x: Floats, y: Floats) -> dict[str, float]:
    """The statistics of one layer from its mean inputs and outputs, both (P, D)."""
    before, after = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    live = before > 1e-8
    return {
        "representation_change": float(np.linalg.norm(y - x, axis=1).mean()),
        "self_similarity": float(cosine(x, y).mean()),
        "norm_growth": float((after[live] / before[live]).mean()) if live.any() else np.nan,
        "cross_example_variance": float(y.var(axis=0).mean()),
        "representation_rank": effective_rank((y - x)[:RANK_PROMPTS]),
    }


def cosine(a: Floats, b: Floats) -> Floats:
    """Cosine of matching rows of two (P, D) arrays; a product of norms below 1e-8 counts as 1e-8.

    The floor is that of `torch.nn.functional.cosine_similarity`, which the reference uses.
    """
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(product, 1e-8))


def effective_rank(rows: Floats) -> float:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli, 2007).

    Returns:
        NaN for fewer than `MIN_RANK_PROMPTS` rows; 1.0 for rows that are all zero, the
        value the reference's formula takes there.
    """
    if len(rows) < MIN_RANK_PROMPTS:
        return float("nan")
    singular = np.linalg.svd(rows, compute_uv=False)
    share = singular / (singular.sum() + 1e-10)
    share = share[share > 1e-10]
    return float(np.exp(-(share * np.log(share)).sum()))


@dataclass(frozen=True, eq=False)
class PlanStats:
    """What candidate models predict after each prompt, reduced to numbers without a vocabulary.

    A candidate is the base model with one block run twice. Let P_b and P_c be the base's
    and candidate c's next-token distributions after prompt p (natural logarithms, nats).
    The Gram tensor is all that a vote of the candidates needs: the probability that two
    candidates draw the same token.

    Args:
        depth: number of decoder layers of the base.
        candidates: the blocks, C of them.
        base_entropy: (P,) entropy of P_b.
        entropy: (C, P) entropy of P_c.
        divergence: (C, P) KL(P_b || P_c).
        agreement: (C, P) whether the most likely tokens of P_b and P_c are the same.
        gram: (P, C, C) inner products <P_c, P_c'>.
    """

    depth: int
    candidates: tuple[Block, ...]
    base_entropy: Floats
    entropy: Floats
    divergence: Floats
    agreement: npt.NDArray[np.bool_]
    gram: Floats

    def __post_init__(self) -> None:
        c, p = len(self.candidates), len(self.base_entropy)
        shapes = {
            "entropy": (c, p), "divergence": (c, p), "agreement": (c, p), "gram": (p, c, c),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UsageError(
                    f"`{name}` has shape {getattr(self, name).shape}, expected {shape} for "
                    f"{c} candidates and {p} prompts"
                )

    def subset(self, prompts: Sequence[int]) -> "PlanStats":
        """The evidence of some prompts only, in the given order; repeats are allowed."""
        at = np.asarray(prompts, dtype=np.int64)
        return replace(
            self,
            base_entropy=self.base_entropy[at],
            entropy=self.entropy[:, at],
            divergence=self.divergence[:, at],
            agreement=self.agreement[:, at],
            gram=self.gram[at],
        )

    @property
    def sure_entropy(self) -> float:
        """Mean entropy of the base on the surer half, in nats; NaN if there is no such half."""
        sure = self.base_entropy[~self.unsure]
        return float(sure.mean()) if len(sure) else float("nan")

    @property
    def unsure(self) -> npt.NDArray[np.bool_]:
        """(P,) the prompts on which the base's entropy is at or above its median."""
        return np.asarray(self.base_entropy >= np.median(self.base_entropy))


@dataclass(frozen=True, eq=False)
class BlockStats:
    """Measurements of each block by itself.

    Args:
        depth: number of decoder layers.
        values: statistic name -> block -> number.
    """

    depth: int
    values: Mapping[str, Mapping[Block, float]]

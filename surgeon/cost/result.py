"""`Cost`: tokens per second and memory of base and candidate, and how they were measured."""

from collections.abc import Sequence
from statistics import median
from typing import ClassVar, Self

from surgeon.record import Measured, Record

BUSY = 0.2
"""Processors of other work from which on rates are not to be relied on.

A background service stays well below it. One busy process on a machine whose processors are
all in use by the model makes every pass wait for the slowest thread.
"""


class Spread(Record):
    """Repeated measurements with their median and range."""

    values: tuple[float, ...]
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The spread of at least one value."""
        return cls(values=tuple(values), median=median(values), low=min(values), high=max(values))


class ModelCost(Record):
    """What one model took.

    Args:
        prefill: prompt tokens a second, until the first new token is there.
        decode: new tokens a second after the first, one at a time with the cache.
        weights: bytes of parameters and buffers, tied ones counted once. On a CPU they are
            mapped from the files, and what is never touched is not in `peak`.
        peak: most bytes of memory while generating; `Cost.memory` says of what.
        idle: of these, the bytes before the model was loaded (0 on a GPU).
    """

    prefill: Spread
    decode: Spread
    weights: int
    peak: int
    idle: int


class Cost(Record):
    """Base and candidate side by side.

    The two take turns, in processes of their own, so that what else the machine does falls
    on both. A ratio is candidate over base, taken within each turn: `decode_ratio.median` of
    0.76 means 0.76 times the tokens a second. Where nothing was measured, `missing` says why
    and the other results are None.

    Args:
        base: of the base model.
        candidate: of the candidate.
        prefill_ratio: candidate's `prefill` over the base's.
        decode_ratio: candidate's `decode` over the base's.
        batch: sequences at a time.
        prompt: tokens of the prompt; drawn at random, their meaning does not matter.
        tokens: new tokens, greedy.
        warm: whether an unmeasured turn came first.
        dtype: of weights and computation.
        device: cpu, or cuda with its number.
        machine: processor or GPU.
        threads: of each process.
        others: processors that other work kept busy meanwhile, on average; NaN if unknown.
        memory: what `peak` counts.
        missing: why nothing was measured, or None.
    """

    SCHEMA: ClassVar[str] = "surgeon.cost/1"

    base: ModelCost | None
    candidate: ModelCost | None
    prefill_ratio: Spread | None
    decode_ratio: Spread | None
    batch: int
    prompt: int
    tokens: int
    warm: bool
    dtype: str
    device: str
    machine: str
    threads: int
    others: Measured
    memory: str
    missing: str | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other work took so much of the machine that the rates say little."""
        return self.others > BUSY

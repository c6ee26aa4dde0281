"""Scores: evidence of a probe -> ranked blocks. One scorer a file; numpy only."""

from surgeon.score.base import (
    CIRCUITPROBE,
    BlockScore,
    Evidence,
    Ranking,
    Scorer,
    Unranked,
    check_compat,
)
from surgeon.score.registry import SCORERS, get_scorer, rank

__all__ = [
    "CIRCUITPROBE",
    "SCORERS",
    "BlockScore",
    "Evidence",
    "Ranking",
    "Scorer",
    "Unranked",
    "check_compat",
    "get_scorer",
    "rank",
]

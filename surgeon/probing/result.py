"""`ProbeResult`: what a probe says, as it is stored and handed on."""

from typing import ClassVar

from surgeon.errors import UsageError
from surgeon.record import Record
from surgeon.score import Ranking
from surgeon.score.robustness import Robustness
from surgeon.stats import LayerStats


class Chosen(Record):
    """A device or dtype and why."""

    value: str
    reason: str


class ModelIdentity(Record):
    """Which model was probed; `config_digest` is the sha256 of its config.json."""

    path: str
    model_type: str
    depth: int
    width: int
    config_digest: str


class PromptsIdentity(Record):
    """Which prompts it was probed with."""

    name: str
    origin: str
    digest: str
    count: int


class ProbeResult(Record):
    """What a probe found; `rankings` is in the order of the scorers asked for.

    Example:
        >>> import json, surgeon
        >>> from pathlib import Path
        >>> text = Path("runs/demo/probe.json").read_text()
        >>> found = surgeon.ProbeResult.from_dict(json.loads(text))
        >>> found.model.depth, [ranking.scorer for ranking in found.rankings]
        (12, ['stability', 'anomaly'])
    """

    SCHEMA: ClassVar[str] = "surgeon.probe/1"

    model: ModelIdentity
    prompts: PromptsIdentity
    tokens: int
    sizes: tuple[int, ...]
    device: Chosen
    dtype: Chosen
    seed: int
    compat: str | None
    stats: LayerStats
    rankings: tuple[Ranking, ...]
    robustness: tuple[Robustness, ...] = ()
    seconds: float
    notes: tuple[str, ...] = ()

    def ranking(self, scorer: str) -> Ranking:
        """The ranking of one scorer.

        Raises:
            UsageError: it was not among the scorers of this probe.
        """
        for ranking in self.rankings:
            if ranking.scorer == scorer:
                return ranking
        known = ", ".join(ranking.scorer for ranking in self.rankings)
        raise UsageError(f"scorer `{scorer}` was not run by this probe; run: {known}")

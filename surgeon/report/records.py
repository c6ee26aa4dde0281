"""The records of a finished run, read back from its folder, for the report and the card.

Reads JSON and the models' headers: no weights, and torch is not imported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from surgeon.checkpoint.deploy import Deployment, deployment_report
from surgeon.checkpoint.inspect import Inspection, inspect
from surgeon.checkpoint.manifest import Manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UsageError
from surgeon.evals.result import CheckResult
from surgeon.outcome import Outcome
from surgeon.plan import LayerPlan
from surgeon.record import Record
from surgeon.score.base import Ranking
from surgeon.stats import LayerStats
from surgeon.sweeping.result import SweepResult
from surgeon.verification.result import Verification

R = TypeVar("R", bound=Record)

ROWS_NAME = "rows.jsonl"


@dataclass(frozen=True)
class Probed:
    """What a report shows of a probe."""

    stats: LayerStats
    rankings: tuple[Ranking, ...]
    prompts: dict[str, Any]
    tokens: int
    seconds: float
    device: dict[str, str]
    dtype: dict[str, str]


@dataclass(frozen=True)
class RunRecords:
    """Everything a finished run left behind; what no stage made is None.

    `inspection` is of the base, `saved` of the new checkpoint where it is still there.
    """

    folder: Path
    outcome: Outcome
    inspection: Inspection
    saved: Inspection | None
    probe: Probed
    manifest: Manifest | None
    verification: Verification | None
    check: CheckResult | None
    sweep: SweepResult | None
    rows: tuple[dict[str, Any], ...]
    deployment: tuple[Deployment, ...]


def read_run(folder: Path) -> RunRecords:
    """The records of the run in `folder`.

    Raises:
        UsageError: no finished run is there, or a record cannot be read.
    """
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"`{folder}` holds no finished run: `run.json` is missing",
            hint="give the --out folder of surgeon run; an interrupted run goes on with it",
        )
    outcome = Outcome.from_dict(_json(folder / "run.json"))
    source = outcome.source.path
    engines: list[Deployment] = []
    if outcome.plan is not None and source.is_dir():
        engines = deployment_report(Checkpoint.open(source), outcome.plan)
    saved, model = outcome.plan is not None, folder / "model"
    return RunRecords(
        folder=folder,
        outcome=outcome,
        inspection=Inspection.from_dict(_json(folder / "inspect.json")),
        saved=inspect(Checkpoint.open(model)) if saved and model.is_dir() else None,
        probe=_probed(_json(folder / "probe.json")),
        manifest=_record(folder / "duplicate.json", Manifest) if saved else None,
        verification=_record(folder / "verify.json", Verification) if saved else None,
        check=_record(folder / "check.json", CheckResult) if saved else None,
        sweep=_record(folder / "sweep.json", SweepResult) if outcome.recipe.sweep else None,
        rows=_rows(folder / ROWS_NAME) if saved else (),
        deployment=tuple(engines),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"`{path}` is no readable record: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"`{path}` is no readable record: not a JSON object")
    return data


def _record(path: Path, kind: type[R]) -> R | None:
    return kind.from_dict(_json(path)) if path.is_file() else None


def _probed(data: dict[str, Any]) -> Probed:
    """Read without the record's class, which lives beside the engine and needs torch."""
    try:
        return Probed(
            stats=LayerStats.model_validate_json(json.dumps(data["stats"])),
            rankings=tuple(
                Ranking.model_validate_json(json.dumps(each)) for each in data["rankings"]
            ),
            prompts=data["prompts"],
            tokens=data["tokens"],
            seconds=data["seconds"],
            device=data["device"],
            dtype=data["dtype"],
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"`probe.json` is no readable record: {error}") from error


def _rows(path: Path) -> tuple[dict[str, Any], ...]:
    """Per-document results; none where the check was made without them."""
    if not path.is_file():
        return ()
    try:
        return tuple(json.loads(line) for line in path.read_text("utf-8").splitlines())
    except ValueError as error:
        raise UsageError(f"`{path}` holds a line that is not JSON: {error}") from error


def model_reference(outcome: Outcome) -> str:
    """How another person names the base model: never a path of this disk."""
    source = outcome.source
    if source.revision:
        return f"{source.name}@{source.revision}"
    return source.name if source.name.startswith("demo:") else Path(source.name).name


def layers_in_words(plan: LayerPlan) -> str:
    """Such as `layers 0-7, then 4-11`."""
    runs = [
        f"{run.start}-{run.stop - 1}" if len(run) > 1 else f"{run.start}" for run in plan.runs()
    ]
    return "layers " + ", then ".join(runs)

"""The model card of a checkpoint this tool wrote: its README.md on the Hub.

Metadata goes through huggingface_hub's own classes. Paired results do not fit the Hub's
leaderboard entries (no n, no interval, no base), so they stand in `model-index` as
arguments of the metric and in the text; nothing is written to `.eval_results`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from surgeon.checkpoint.deploy import Deployment
from surgeon.checkpoint.inspect import Inspection, inspect
from surgeon.checkpoint.manifest import Manifest, read_manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.cost.result import Cost
from surgeon.errors import UsageError
from surgeon.evals.result import CheckResult
from surgeon.paired import Verdict
from surgeon.report.costs import cost_method
from surgeon.report.markdown import cost_table, verdict_rows
from surgeon.report.records import RunRecords, layers_in_words, model_reference
from surgeon.report.tables import verdict_line
from surgeon.report.verdicts import STOPPED
from surgeon.selection import Selection
from surgeon.tasks import TASKS
from surgeon.version import __version__

CARD_NAME = "README.md"
CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")
TAGS = ["surgeon", "layer-duplication", "merge"]


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Args:
        manifest: of the checkpoint.
        inspection: of the checkpoint.
        base: how another person names the base model; `owner/name[@revision]` on the Hub.
        source_metadata: of the base model's own card.
        check: its comparison with the base, if one was made.
        selection: how the block was chosen, if it was.
        deployment: what engines make of it, where the source was there to ask.
        cost: tokens per second and memory against the base, if they were measured.
    """

    manifest: Manifest
    inspection: Inspection
    base: str
    source_metadata: Mapping[str, Any]
    check: CheckResult | None = None
    selection: Selection | None = None
    deployment: Sequence[Deployment] = ()
    cost: Cost | None = None

    @property
    def base_repository(self) -> str | None:
        """`owner/name` if the base is on the Hub."""
        name = self.base.partition("@")[0]
        return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else None

    @property
    def added(self) -> int:
        """Layers more than the base has."""
        return len(self.manifest.plan) - self.manifest.plan.depth


def run_facts(records: RunRecords) -> CardFacts:
    """What the card of a run's model says.

    Raises:
        UsageError: the run saved no model.
    """
    if records.manifest is None or records.saved is None:
        raise UsageError(f"`{records.folder}` saved no model: {records.outcome.selection.reason}")
    return CardFacts(
        manifest=records.manifest,
        inspection=records.saved,
        base=model_reference(records.outcome),
        source_metadata=source_metadata(records.outcome.source.path),
        check=records.check,
        selection=records.outcome.selection,
        deployment=records.deployment,
        cost=records.outcome.cost,
    )


def folder_facts(folder: Path, check: CheckResult | None = None) -> CardFacts:
    """What the card of a checkpoint outside a run folder says.

    Raises:
        UsageError: this tool did not write the checkpoint.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"`{folder}` has no surgeon.json", hint="make it with surgeon duplicate")
    source = manifest.source
    return CardFacts(
        manifest=manifest,
        inspection=inspect(Checkpoint.open(folder)),
        base=f"{source.id}@{source.revision}" if source.revision else source.id,
        source_metadata={},
        check=check,
    )


def source_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a model folder's own card; empty where there is none to read."""
    path = folder / CARD_NAME
    if not path.is_file():
        return {}
    try:
        return dict(ModelCard.load(path, ignore_metadata_errors=True).data.to_dict())
    except ValueError:
        return {}  # a card whose front matter is not YAML has nothing to carry over


def render_card(facts: CardFacts, repository: str | None = None) -> str:
    """The card as text.

    Args:
        facts: what it says.
        repository: `owner/name` it will be found under, if that is known.
    """
    name = repository.partition("/")[2] if repository else _title(facts)
    metadata = card_metadata(facts, name)
    body = "\n\n".join(part for part in _parts(facts, name, repository) if part)
    card = ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}\n")
    return _signed(str(card.content))


def _signed(text: str) -> str:
    """The text with its own digest in a comment at the end."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- surgeon card {digest} -->\n"


def is_as_written(text: str) -> bool:
    """Whether a card is one of ours that nobody has edited since."""
    body = text.rpartition("\n<!-- surgeon card ")[0]
    return bool(body) and _signed(body) == text


def card_metadata(facts: CardFacts, name: str) -> ModelCardData:
    """The card's metadata: the base once with its relation, licence and language carried."""
    carried = {key: facts.source_metadata.get(key) for key in CARRIED}
    carried["pipeline_tag"] = carried["pipeline_tag"] or "text-generation"
    results = (
        [_eval_result(facts, each.verdict) for each in facts.check.tasks] if facts.check else []
    )
    relation = {"base_model_relation": "merge"} if facts.base_repository else {}
    known: dict[str, Any] = {key: value for key, value in carried.items() if value} | relation
    return ModelCardData(
        base_model=facts.base_repository,
        library_name="transformers",
        tags=TAGS,
        model_name=name if results else None,
        eval_results=results or None,
        **known,
    )


def _eval_result(facts: CardFacts, verdict: Verdict) -> EvalResult:
    low, high = verdict.interval
    described = _protocol(facts, verdict.task)
    return EvalResult(
        task_type="text-generation",
        dataset_type=f"surgeon/{verdict.task}" if verdict.task in TASKS else str(verdict.task),
        dataset_name=f"{verdict.task} ({verdict.split or 'default'} split, {verdict.n} documents)",
        dataset_split=verdict.split,
        metric_type=str(described.get("metric", "acc")),
        metric_value=_rounded(verdict.candidate),
        metric_name=f"{described.get('metric', 'acc')}, paired with the base model",
        metric_args={
            "n": verdict.n,
            "base": _rounded(verdict.base),
            "difference": _rounded(verdict.difference),
            "interval": [_rounded(low), _rounded(high)],
            "level": verdict.level,
            "wins": verdict.wins,
            "losses": verdict.losses,
            "verdict": verdict.verdict,
            "method": verdict.method,
        },
    )


def _rounded(value: float) -> float:
    return round(float(value), 6)


def _protocol(facts: CardFacts, task: str | None) -> dict[str, Any]:
    tasks = facts.check.protocol["tasks"] if facts.check else []
    return next((dict(each) for each in tasks if each["task"] == task), {})


def _title(facts: CardFacts) -> str:
    base = facts.base.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
    return f"{base}-{len(facts.manifest.plan)}-layers"


def _parts(facts: CardFacts, name: str, repository: str | None) -> list[str]:
    return [
        f"# {name}",
        _summary(facts),
        _layer_map(facts),
        _evaluation(facts),
        _cost(facts),
        _choice(facts),
        _limits(facts),
        _engines(facts),
        _loading(facts, repository),
        _rebuilding(facts),
        f"Written by surgeon {facts.manifest.versions.get('surgeon', __version__)}.",
    ]


def _summary(facts: CardFacts) -> str:
    plan = facts.manifest.plan
    made = (
        f"`{facts.base}` with its layers in another order: {layers_in_words(plan)} "
        f"({plan.depth} layers became {len(plan)}). The weights are copies of the base model's, "
        "byte for byte; nothing was trained."
    )
    if facts.check is None:
        return f"**Not evaluated.** {made}"
    verdict = facts.check.verdict
    found = f"**{verdict.verdict.capitalize()}** on {_tasks(facts.check)}"
    return f"{found}: {verdict_line(verdict)}.\n\n{made}"


def _tasks(check: CheckResult) -> str:
    return ", ".join(f"`{each.task}`" for each in check.tasks)


def _layer_map(facts: CardFacts) -> str:
    lines, at = ["## Layer map", "", "| positions | source layers |", "|---|---|"], 0
    for run in facts.manifest.plan.runs():
        lines.append(f"| {at}-{at + len(run) - 1} | {run.start}-{run.stop - 1} |")
        at += len(run)
    growth = facts.added / facts.manifest.plan.depth
    total = facts.inspection.parameters.total / 1e6
    lines += [
        "",
        f"Plan `{facts.manifest.plan}`; {total:,.1f} M parameters, "
        f"{facts.manifest.total_bytes / 1e6:,.1f} MB. Layer compute and key-value cache: "
        f"{growth:+.0%} against the base.",
    ]
    return "\n".join(lines)


def _evaluation(facts: CardFacts) -> str:
    if facts.check is None:
        return ""
    lines = [
        "## Evaluation",
        "",
        "Base and this model answered the same documents; `won` and `lost` count the documents "
        "on which only one of them was right.",
        "",
        *verdict_rows(facts.check),
    ]
    verdict = facts.check.verdict
    lines += [
        "",
        f"Method: {verdict.method} at level {verdict.level:g}; differences within "
        f"±{verdict.margin:g} count as none. {facts.check.documents} of at most "
        f"{facts.check.budget} documents were looked at "
        f"({STOPPED[facts.check.stopped]}); split `{verdict.split or 'default'}`, "
        "which chose nothing.",
    ]
    notes = dict.fromkeys((*facts.check.notes, *verdict.notes))
    return "\n".join([*lines, *(f"- {note}" for note in notes)])


def _cost(facts: CardFacts) -> str:
    cost, plan = facts.cost, facts.manifest.plan
    if cost is None or cost.decode_ratio is None:
        return ""
    growth = len(plan) / plan.depth - 1
    head = f"{growth:+.0%} layers: {cost.decode_ratio.median:.2f}x the base's tokens per second."
    return "\n".join(
        ["## Cost", "", head, "", *cost_table(cost), "", "\n\n".join(cost_method(cost))]
    )


def _choice(facts: CardFacts) -> str:
    selection = facts.selection
    if selection is None:
        return ""
    if not selection.tried:
        return f"## How the block was chosen\n\n{selection.reason} ({selection.origin})."
    tried = sorted(selection.tried, key=lambda each: -each.verdict.difference)
    lines = [
        "## How the block was chosen",
        "",
        f"{len(tried)} blocks were measured on {selection.n} documents of `{selection.task}` "
        "(split `select`), the ones that did not help included:",
        "",
        "| block | proposed by | change | interval |",
        "|---|---|--:|---|",
    ]
    for each in tried:
        low, high = each.verdict.interval
        chosen = " (chosen)" if each.block == selection.winner else ""
        lines.append(
            f"| {each.block}{chosen} | {each.origin} | {each.verdict.difference:+.3f} | "
            f"{low:+.3f} to {high:+.3f} |"
        )
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    limits = []
    if facts.check is None:
        limits.append("No comparison with the base model is on record for this checkpoint.")
    else:
        limits.append(
            f"Judged on {_tasks(facts.check)} alone, with n = {facts.check.documents}; nothing is "
            "known of other tasks, of chat, safety or long contexts."
        )
        if "sequence" in facts.check.verdict.method:
            limits.append(
                "Documents were drawn until the verdict was clear, so the estimated change is "
                "likelier too large than too small; the interval holds all the same."
            )
    if facts.inspection.size_class == "unmeasured":
        limits.append("Between 3B and 7B parameters the effect of duplication was not studied.")
    if facts.base.startswith("demo:"):
        limits.append("The base is a toy model made for a demonstration; this is no evidence.")
    if not facts.source_metadata.get("license"):
        limits.append("The licence is that of the base model; it was not stated with the files.")
    limits.append("Inference engines other than transformers were not tried.")
    return "\n".join(["## Limitations", "", *(f"- {limit}" for limit in limits)])


def _engines(facts: CardFacts) -> str:
    if not facts.deployment:
        return ""
    lines = ["## Engines", "", "From the engines' source code; none of them was run.", ""]
    lines += ["| engine | state | why |", "|---|---|---|"]
    for each in facts.deployment:
        lines.append(f"| {each.target} | {each.state} | {'; '.join(each.reasons)} |")
    return "\n".join(lines)


def _loading(facts: CardFacts, repository: str | None) -> str:
    path = repository or "PATH_OR_REPOSITORY"
    return "\n".join(
        [
            "## How to load",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{path}", dtype="auto")',
            f'tokenizer = AutoTokenizer.from_pretrained("{path}")',
            "```",
        ]
    )


def _rebuilding(facts: CardFacts) -> str:
    return "\n".join(
        [
            "## How to rebuild",
            "",
            "```sh",
            f"surgeon duplicate {facts.base} rebuilt --layers '{facts.manifest.plan}'",
            "```",
            "",
            "`surgeon.json` holds the digests of every file and source tensor; "
            "`surgeon verify` compares them.",
        ]
    )

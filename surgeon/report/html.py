"""`report.html`: one run on one self-contained page, for a screen, a phone and paper.

The page holds no script and loads nothing; figures are inline SVG whose colours follow the
light or dark theme of the reader.
"""

import math
from typing import Any

from surgeon.checkpoint.manifest import Manifest
from surgeon.paired import Verdict
from surgeon.report import svg
from surgeon.report.costs import cost_method, cost_rows
from surgeon.report.flips import flipped
from surgeon.report.page import asset, template
from surgeon.report.records import RunRecords, layers_in_words, model_reference
from surgeon.report.sweep_html import prediction_rows
from surgeon.report.verdicts import STOPPED, evidence
from surgeon.version import __version__

STATISTICS = {
    "representation_change": "length of the change a layer makes to its mean input",
    "self_similarity": "cosine of a layer's input and output",
    "norm_growth": "length of the output over that of the input",
    "attention_entropy": "spread of attention, in nats",
    "cross_example_variance": "spread of the output over prompts",
    "representation_rank": "effective rank of the outputs over prompts",
    "forward_similarity": "cosine of a layer's output and the next one's",
    "forward_similarity_first": "the same, for the first prompt alone",
}


def render_html(records: RunRecords) -> str:
    """The page of a run."""
    # The style sheet is this package's own file, and the figures are built by `svg`, which
    # escapes what it is given; everything else is escaped by the template.
    from markupsafe import Markup  # jinja2 brings it

    context = {
        "css": Markup(asset("report.css")),
        "version": __version__,
        **_head(records),
        **_map(records),
        **_statistics(records),
        **_sweep(records),
        **_selection(records),
        **_confirmation(records),
        **_flips(records),
        **_cost(records),
        **_deployment(records),
        **_provenance(records),
    }
    for figure in ("running",):
        context[figure] = Markup(context[figure])
    for rows, key in (("statistics", "figure"), ("tried", "bar"), ("tasks", "bar")):
        for row in context[rows]:
            row[key] = Markup(row[key])
    context["sections"] = _sections(context)
    return template("report.html.j2").render(context)


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    names = {
        "done": "What was done",
        "map": "Layer map",
        "statistics": "Statistics",
        "predictions": "Prediction against measurement",
        "selection": "Selection",
        "confirmation": "Confirmation",
        "flips": "Flipped documents",
        "cost": "Cost",
        "deployment": "Deployment",
        "provenance": "Provenance",
        "reproduce": "Reproduce",
    }
    absent = {
        "predictions": not context["predictions"],
        "confirmation": not context["tasks"],
        "flips": not context["flips"],
    }
    return [(key, name) for key, name in names.items() if not absent.get(key)]


def _head(records: RunRecords) -> dict[str, Any]:
    outcome, verdict = records.outcome, records.outcome.verdict
    base = model_reference(outcome)
    plan = outcome.plan
    title = f"{base} with {layers_in_words(plan)}" if plan else f"{base}: no block was duplicated"
    numbers = []
    if verdict is not None:
        low, high = verdict.interval
        numbers = [
            ("base", f"{verdict.base:.3f}"),
            ("candidate" if plan else "best candidate", f"{verdict.candidate:.3f}"),
            ("change", f"{verdict.difference:+.3f}"),
            (f"{_level(verdict)} interval", f"{low:+.3f} … {high:+.3f}"),
            ("documents", f"{verdict.n:,}"),
            ("won / lost", f"{verdict.wins} / {verdict.losses}"),
        ]
    headline = outcome.selection.reason
    if plan and verdict:
        headline = f"on {verdict.task or 'all tasks'}, split {verdict.split}: {evidence(verdict)}"
    return {
        "title": title.replace("-", "\N{NON-BREAKING HYPHEN}"),
        "recipe_name": outcome.recipe.name,
        "conclusion": outcome.conclusion,
        "kind": outcome.conclusion.split()[0].replace("no", "none"),
        "headline": headline,
        "numbers": numbers,
        "stages": outcome.stages,
        "warnings": outcome.warnings,
    }


def _level(verdict: Verdict) -> str:
    return f"{100 * verdict.level:.4g}%"


def _map(records: RunRecords) -> dict[str, Any]:
    """Rows of cells: each scorer's first block, and the order in which layers now run."""
    outcome = records.outcome
    depth, plan = records.inspection.depth, outcome.plan
    columns = max(depth, len(plan) if plan else 0)
    chosen = {plan.layers[at] for at in _repeats(plan.layers)} if plan else set()
    rows = [
        {
            "label": "source layer",
            "cells": [_cell(str(at), "chosen" if at in chosen else "") for at in range(depth)],
        }
    ]
    for ranking in records.probe.rankings:
        best = ranking.best
        inside = set(best.block.layers) if best else set()
        label = f"{ranking.scorer} {best.block}" if best else f"{ranking.scorer}: none"
        cells = [
            _cell("●" if at in inside else "", "picked" if at in inside else "")
            for at in range(depth)
        ]
        rows.append({"label": label, "cells": cells})
    if plan:
        again = set(_repeats(plan.layers))
        rows.append(
            {
                "label": "runs now",
                "cells": [
                    _cell(str(layer), "again" if at in again else "", f"position {at}")
                    for at, layer in enumerate(plan.layers)
                ],
            }
        )
    for row in rows:
        row["cells"] += [_cell("", "empty")] * (columns - len(row["cells"]))  # type: ignore[operator]
    return {
        "map_columns": columns,
        "map_rows": rows,
        "map_caption": _map_caption(records),
        "map_legend": "● first choice of each scorer. Outlined layers in the last row run again.",
    }


def _repeats(layers: tuple[int, ...]) -> list[int]:
    """Positions whose source layer has run before."""
    return [at for at, layer in enumerate(layers) if layer in layers[:at]]


def _cell(text: str, kind: str, title: str = "") -> dict[str, str]:
    return {"text": text, "kind": kind, "title": title}


def _map_caption(records: RunRecords) -> str:
    plan, selection = records.outcome.plan, records.outcome.selection
    if plan is None:
        return "No block gained enough, so the model was left as it is."
    origin = f" Chosen block: {selection.winner} ({selection.origin})." if selection.winner else ""
    return f"{layers_in_words(plan).capitalize()}: {plan.depth} became {len(plan)}.{origin}"


def _statistics(records: RunRecords) -> dict[str, Any]:
    stats, probe = records.probe.stats, records.probe
    winner = records.outcome.selection.winner
    block = (winner.start, winner.stop) if winner else None
    shown, missing = [], []
    for name in stats.values:
        figure = svg.layer_line(stats.values[name], block, name)
        if figure:
            note = STATISTICS.get(name, "")
            shown.append({"name": name.replace("_", " "), "note": note, "figure": figure})
        else:
            missing.append(f"{name}: {stats.why_missing(name)}")
    caption = (
        f"{probe.prompts['count']} prompts ({probe.prompts['name']}), {probe.tokens:,} tokens, "
        f"{probe.seconds:.1f} s on {probe.device['value']} in {probe.dtype['value']}."
    )
    if block:
        caption += " The chosen block is shaded."
    if missing:
        caption += f" Not measured: {'; '.join(missing)}."
    return {"statistics": shown, "probe_caption": caption}


def _span(verdicts: list[Verdict]) -> float:
    """Half-width of a forest plot, a round number that holds every interval."""
    ends = [abs(end) for v in verdicts for end in v.interval if math.isfinite(end)]
    reach = max([0.02, *ends])
    return next((s for s in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5) if s >= reach), 1.0)


def _interval(verdict: Verdict) -> str:
    low, high = verdict.interval
    return f"{low:+.3f} to {high:+.3f}"


def _bar(verdict: Verdict, span: float) -> str:
    return svg.interval_bar(*verdict.interval, verdict.difference, span, verdict.verdict)


def _sweep(records: RunRecords) -> dict[str, Any]:
    if records.sweep is None:
        return {"predictions": [], "prediction_caption": ""}
    return prediction_rows(records.sweep)


def _selection(records: RunRecords) -> dict[str, Any]:
    selection = records.outcome.selection
    order = sorted(selection.tried, key=lambda each: -each.verdict.difference)
    span = _span([each.verdict for each in order])
    tried = [
        {
            "block": str(each.block),
            "origin": each.origin,
            "change": f"{each.verdict.difference:+.3f}",
            "interval": _interval(each.verdict),
            "counts": f"{each.verdict.wins} / {each.verdict.losses}",
            "bar": _bar(each.verdict, span),
            "chosen": each.block == selection.winner,
        }
        for each in order
    ]
    if not tried:
        return {
            "tried": [],
            "span": "",
            "selection_note": "",
            "selection_caption": f"{selection.reason}.",
        }
    return {
        "tried": tried,
        "span": f"{span:g}",
        "selection_caption": (
            f"{len(tried)} blocks were measured on {selection.n} documents of {selection.task}, "
            f"split select; the base scores {selection.base:.3f}. Result: {selection.reason}."
        ),
        "selection_note": (
            f"Intervals hold together for all {order[0].verdict.candidates} blocks that might "
            "have been measured. The best of many looks better than it is, which is why the "
            "verdict comes from other documents. Of equal gains the smaller block is taken."
        ),
    }


def _confirmation(records: RunRecords) -> dict[str, Any]:
    check = records.check
    if check is None:
        return {
            "tasks": [], "check_span": "", "running": "", "margin": "", "check_facts": [],
            "check_caption": "",
        }  # fmt: skip
    verdicts = [(each.task, each.verdict) for each in check.tasks]
    if len(verdicts) > 1:
        verdicts.append(("all tasks", check.verdict))
    span = _span([verdict for _, verdict in verdicts])
    tasks = [
        {
            "task": name,
            "kind": verdict.verdict,
            "n": verdict.n,
            "base": f"{verdict.base:.3f}",
            "candidate": f"{verdict.candidate:.3f}",
            "change": f"{verdict.difference:+.3f}",
            "interval": _interval(verdict),
            "counts": f"{verdict.wins} / {verdict.losses} / {verdict.ties}",
            "bar": _bar(verdict, span),
        }
        for name, verdict in verdicts
    ]
    return {
        "tasks": tasks,
        "check_span": f"{span:g}",
        "check_caption": (
            f"{check.documents} of at most {check.budget} documents that chose nothing; "
            f"{STOPPED[check.stopped]}."
        ),
        "running": svg.running_interval(check.trace, check.verdict.margin, check.verdict.verdict),
        "margin": f"{check.verdict.margin:g}",
        "check_facts": _check_facts(records),
    }


def _check_facts(records: RunRecords) -> list[str]:
    check = records.check
    assert check is not None
    valid = check.validity
    facts = [
        f"Method: {evidence(check.verdict)}, at level {_level(check.verdict)}.",
        f"{valid.pairs} pairs with equal hashes of document, prompt and target.",
        f"A/A control: {valid.control_flips} of {valid.control_documents} answers flipped when "
        "the base was scored twice.",
        f"Models: {valid.weights}.",
    ]
    if check.damage is not None:
        low, high = check.damage.interval
        facts.append(
            f"Damage: {'yes' if check.damage.damaged else 'none seen'}; right answers changed by "
            f"{-check.damage.drop:+.2f} nats per token on the first {check.damage.n} documents "
            f"(interval {-high:+.2f} to {-low:+.2f})."
        )
    for each in check.tasks:
        if each.format_changed:
            facts.append(f"{each.task}: the share of answers without a readable format changed.")
    return facts + list(dict.fromkeys((*check.notes, *check.verdict.notes)))


def _flips(records: RunRecords) -> dict[str, Any]:
    return {
        "flips": flipped(records),
        "flips_caption": (
            "The documents on which exactly one of the two was right, in the order they were "
            "drawn. All others were answered with the same score."
        ),
    }


def _cost(records: RunRecords) -> dict[str, Any]:
    inspection, manifest, plan = records.inspection, records.manifest, records.outcome.plan
    base_bytes = _source_bytes(manifest) or inspection.nbytes
    rows: list[tuple[str, ...]] = []
    if manifest is None or plan is None:
        rows.append(("layers", str(inspection.depth), "-", ""))
        rows.append(("parameters", f"{inspection.parameters.total:,}", "-", ""))
        rows.append(("weights", f"{base_bytes / 1e6:,.1f} MB", "-", ""))
        return {"cost": rows, "cost_notes": ["No model was saved."]}
    new_bytes = sum(f.size for f in manifest.files if f.name.endswith(".safetensors"))
    rows.append(_change("layers", inspection.depth, len(plan), "{:,.0f}"))
    if records.saved is not None:
        counts = inspection.parameters.total, records.saved.parameters.total
        rows.append(_change("parameters", *counts, "{:,.0f}"))
    rows.append(_change("weight files, MB", base_bytes / 1e6, new_bytes / 1e6, "{:,.1f}"))
    cost = records.outcome.cost
    if cost is not None:
        rows += cost_rows(cost)
    note = "Layer compute and key-value cache grow with the layers."
    check = records.check
    if check is not None and "layer_forwards" in check.cost:
        shared = check.cost["layer_forwards"] / max(check.cost["layer_forwards_alone"], 1)
        note += (
            f" The check took {check.seconds:.1f} s for both models; sharing layer prefixes, it "
            f"ran {shared:.0%} of the layers that two separate runs would have."
        )
    how = cost_method(cost) if cost else ["Tokens per second and memory: not measured."]
    return {"cost": rows, "cost_notes": [*how, note]}


def _change(name: str, before: float, after: float, form: str) -> tuple[str, ...]:
    return name, form.format(before), form.format(after), f"{after / before:.2f}x"


def _source_bytes(manifest: Manifest | None) -> int:
    if manifest is None:
        return 0
    files = manifest.source.files
    return sum(int(each["size"]) for name, each in files.items() if name.endswith(".safetensors"))


def _deployment(records: RunRecords) -> dict[str, Any]:
    inspection, manifest = records.inspection, records.manifest
    facts = [f"Size: {inspection.guard}."]
    if manifest is not None:
        edits = [f"{edit.key}: {edit.before} → {edit.after}" for edit in manifest.edits]
        facts.append(f"Changes in config.json: {'; '.join(edits) or 'none'}.")
        if inspection.per_layer:
            facts.append(
                "Per-layer settings that follow the layers: "
                f"{', '.join(inspection.per_layer)}. An engine that derives them from the layer "
                "number instead would run another model; compare its output first."
            )
        else:
            facts.append("No per-layer settings: the number of layers is all an engine must read.")
        if manifest.left:
            facts.append(f"Left out of the copy: {', '.join(manifest.left)}.")
    facts.append(
        "Run here with transformers. What is said of engines follows from their source code; "
        "none of the others was run."
    )
    checks = records.verification.checks if records.verification else []
    return {"deployment": facts, "checks": checks, "engines": records.deployment}


def _provenance(records: RunRecords) -> dict[str, Any]:
    outcome, check, manifest = records.outcome, records.check, records.manifest
    rows = [
        ("base model", model_reference(outcome)),
        ("family", f"{records.inspection.model_type} ({records.inspection.family_verdict})"),
        ("prompts", f"{records.probe.prompts['origin']} sha256 {records.probe.prompts['digest']}"),
        ("seed", str(outcome.recipe.seed)),
        ("device", f"{records.probe.device['value']} ({records.probe.device['reason']})"),
        ("number format", f"{records.probe.dtype['value']} ({records.probe.dtype['reason']})"),
    ]
    if manifest is not None:
        rows += [
            (f"sha256 of source {name}", str(each["sha256"]))
            if each.get("sha256")
            else (f"sha256 of source {name}, its header", str(each.get("header_sha256")))
            for name, each in manifest.source.files.items()
        ]
        rows += [(f"digest of {file.name}", file.digest or "not read") for file in manifest.files]
    if check is not None:
        rows.append(("documents, sha256", str(check.protocol.get("documents_sha256"))))
        rows.append(("protocol, sha256", check.protocol_sha256))
        rows.append(("versions", ", ".join(f"{k} {v}" for k, v in check.versions.items())))
    return {
        "provenance": rows,
        "commands": reproduce(records),
        "recipe": outcome.recipe.to_yaml().strip(),
    }


def reproduce(records: RunRecords) -> str:
    """The commands that do it again."""
    base = model_reference(records.outcome)
    lines = [f"surgeon run recipe.yaml --model {base}"]
    if records.outcome.plan is not None:
        lines.append(f"surgeon duplicate {base} rebuilt --layers '{records.outcome.plan}'")
        lines.append(f"surgeon verify rebuilt --base {base} --logits")
        step = records.outcome.recipe.check
        tasks = " ".join(f"--task {task}" for task in step.tasks)
        limit = f"--limit {step.documents} --margin {step.margin:g}"
        lines.append(f"surgeon check {base} rebuilt {tasks} {limit}")
    return "\n".join(lines)

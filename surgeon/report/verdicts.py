"""A check as text: the table of tasks, and what else a reader must know."""

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.report.tables import STYLE, plain_table, verdict_line

if TYPE_CHECKING:  # tables must not load torch
    from surgeon.evals.result import CheckResult
    from surgeon.paired import Verdict

STOPPED = {
    "decided": "stopped as soon as it was clear",
    "damage": "stopped early: the candidate is damaged",
    "time": "stopped by --minutes",
    "all documents": "all documents of the budget",
}


def check_table(result: "CheckResult") -> RenderableType:
    """Verdict first, then each task, then how it was found out."""
    parts: list[RenderableType] = [headline(result.verdict), ""]
    parts += [_tasks(result), ""] if len(result.tasks) > 1 else []
    parts.append(_facts(result))
    notes = dict.fromkeys((*result.notes, *result.verdict.notes))
    parts += [Text(f"note     {note}") for note in notes]
    return Group(*parts)


def headline(verdict: "Verdict") -> Text:
    """The verdict with its numbers, and what it would take where it is open."""
    text = Text("verdict  ")
    text.append(verdict.verdict, style=STYLE[verdict.verdict])
    text.append(f"  {verdict_line(verdict)}\n         {evidence(verdict)}")
    if verdict.verdict == "equivalent":
        text.append(f"; equivalent means within +-{verdict.margin:g}")
    if verdict.verdict == "undecided" and verdict.docs_needed:
        text.append(f"; about {verdict.docs_needed:,} more documents would likely decide")
    return text


def evidence(verdict: "Verdict") -> str:
    """Method, p and e-value, and what alpha was corrected for."""
    text = verdict.method
    if math.isfinite(verdict.p):
        text += f", p {verdict.p:.2g}"
    if math.isfinite(verdict.e):
        text += f", e-value {verdict.e:.3g}"
    if verdict.candidates > 1:
        text += f", corrected for {verdict.candidates} candidates"
    return text


def live_line(verdict: "Verdict") -> str:
    """The verdict so far, short enough for a progress line."""
    low, high = verdict.interval
    return (
        f"n {verdict.n}  {verdict.base:.3f} -> {verdict.candidate:.3f}  "
        f"{verdict.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    )


def _tasks(result: "CheckResult") -> Table:
    table = plain_table(
        "task", "verdict", "n", "base", "candidate", "change", "interval", "won", "lost",
        numbers=("n", "base", "candidate", "change", "won", "lost"),
    )  # fmt: skip
    for each in result.tasks:
        verdict = each.verdict
        low, high = verdict.interval
        table.add_row(
            each.task,
            Text(verdict.verdict, style=STYLE[verdict.verdict]),
            str(verdict.n),
            f"{verdict.base:.3f}",
            f"{verdict.candidate:.3f}",
            f"{verdict.difference:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            str(verdict.wins),
            str(verdict.losses),
        )
    return table


def _facts(result: "CheckResult") -> Table:
    table = plain_table("", "")
    table.show_header = False
    described = [
        f"{task['task']} ({task['split']} split, {task['metric']}"
        + (f", {task['fewshot']}-shot" if task["fewshot"] else "")
        + ")"
        for task in result.protocol["tasks"]
    ]
    why = STOPPED[result.stopped]
    table.add_row("tasks", ", ".join(described))
    table.add_row("looked", f"{result.documents} of {result.budget} documents; {why}")
    table.add_row("models", result.validity.weights)
    table.add_row(
        "valid",
        f"{result.validity.pairs} pairs with equal hashes, all scores finite, "
        f"{result.validity.control_flips} of {result.validity.control_documents} answers "
        "flipped when the base was scored twice",
    )
    for each in result.tasks:
        shares = (each.base_extraction_failure, each.candidate_extraction_failure)
        if max(shares) > 0:
            found = f"no answer found: base {shares[0]:.1%}, candidate {shares[1]:.1%}"
            table.add_row("answers", f"{each.task}: {found}")
    if result.damage:
        table.add_row("damage", _damage(result))
    return table


def _damage(result: "CheckResult") -> str:
    damage = result.damage
    assert damage is not None
    low, high = damage.interval
    change = -damage.drop
    return (
        f"{'yes' if damage.damaged else 'none seen'}: right answers {change:+.2f} nats per token "
        f"on the first {damage.n} documents (interval {-high:+.2f} to {-low:+.2f})"
    )

"""`report.md`: a run in a form that fits a pull request."""

from surgeon.cost.result import Cost
from surgeon.evals.result import CheckResult
from surgeon.paired import Verdict
from surgeon.report.costs import cost_line, cost_method, cost_rows
from surgeon.report.html import reproduce
from surgeon.report.records import RunRecords, layers_in_words, model_reference
from surgeon.report.tables import verdict_line
from surgeon.version import __version__


def render_markdown(records: RunRecords) -> str:
    """The run in Markdown."""
    parts = [
        _head(records),
        _confirmation(records),
        _cost(records),
        _sweep(records),
        _selection(records),
    ]
    parts.append(_again(records))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(records: RunRecords) -> str:
    outcome = records.outcome
    lines = [f"## {model_reference(outcome)}: {outcome.conclusion}", ""]
    if outcome.plan is None:
        lines.append(f"No model was saved: {outcome.selection.reason}.")
    else:
        plan = outcome.plan
        lines.append(
            f"Plan `{plan}`: {layers_in_words(plan)}; {plan.depth} layers became {len(plan)}. "
            "Weights are byte-for-byte copies; nothing was trained."
        )
    if outcome.plan is not None and outcome.verdict is not None:
        lines += ["", f"**{outcome.conclusion}**: {verdict_line(outcome.verdict)}."]
    lines += [f"\n> **Warning:** {warning}" for warning in outcome.warnings]
    return "\n".join(lines)


def _confirmation(records: RunRecords) -> str:
    if records.check is None:
        return ""
    return "\n".join(verdict_rows(records.check))


def verdict_rows(check: CheckResult) -> list[str]:
    """A check as the lines of a Markdown table: each task, and all of them together."""
    rows = [(each.task, each.verdict) for each in check.tasks]
    if len(rows) > 1:
        rows.append(("**all**", check.verdict))
    return [
        "| task | verdict | n | base | candidate | change | interval | won | lost |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|",
        *(_row(name, verdict) for name, verdict in rows),
    ]


def _row(name: str, verdict: Verdict) -> str:
    low, high = verdict.interval
    return (
        f"| {name} | {verdict.verdict} | {verdict.n} | {verdict.base:.3f} | "
        f"{verdict.candidate:.3f} | {verdict.difference:+.3f} | {low:+.3f} to {high:+.3f} | "
        f"{verdict.wins} | {verdict.losses} |"
    )


def _cost(records: RunRecords) -> str:
    cost = records.outcome.cost
    if cost is None:
        return ""
    head = f"Cost: {cost_line(cost)}."
    if cost.missing is not None:
        return head
    opened = f"<details><summary>{head}</summary>"
    return "\n".join(
        [opened, "", *cost_table(cost), "", "\n\n".join(cost_method(cost)), "", "</details>"]
    )


def cost_table(cost: Cost) -> list[str]:
    """A measured cost as the lines of a Markdown table."""
    return [
        "| | base | candidate | ratio |",
        "|---|--:|--:|--:|",
        *(f"| {' | '.join(row)} |" for row in cost_rows(cost)),
    ]


def _sweep(records: RunRecords) -> str:
    if records.sweep is None or not records.sweep.predictions:
        return ""
    found = records.sweep.predictions
    lines = [
        f"<details><summary>Predictions against all {len(records.sweep.effects)} measured "
        f"blocks (best {found[0].best}, {found[0].best_difference:+.3f})</summary>",
        "",
        "| scorer | first | change | layers off | Spearman | regret |",
        "|---|---|--:|--:|---|---|",
    ]
    for each in found:
        (low, high), (least, most) = each.spearman_interval, each.regret_interval
        lines.append(
            f"| {each.scorer} | {each.predicted} | {each.predicted_difference:+.3f} | "
            f"{each.distance} | {each.spearman:+.2f} ({low:+.2f} to {high:+.2f}) | "
            f"{each.regret:.3f} ({least:.3f} to {most:.3f}) |"
        )
    chance = found[0]
    lines += [
        f"| a random block | | | {chance.chance_within_two:.0%} within 2 | 0 | "
        f"{chance.chance_regret:.3f} |",
        "",
        "</details>",
    ]
    return "\n".join(lines)


def _selection(records: RunRecords) -> str:
    selection = records.outcome.selection
    if not selection.tried:
        return f"Selection: {selection.reason}."
    lines = [
        f"<details><summary>{len(selection.tried)} blocks measured on {selection.n} documents of "
        f"{selection.task} (split select, base {selection.base:.3f})</summary>",
        "",
        "| block | proposed by | change | interval |",
        "|---|---|--:|---|",
    ]
    for each in sorted(selection.tried, key=lambda entry: -entry.verdict.difference):
        low, high = each.verdict.interval
        mark = " (chosen)" if each.block == selection.winner else ""
        lines.append(
            f"| {each.block}{mark} | {each.origin} | {each.verdict.difference:+.3f} | "
            f"{low:+.3f} to {high:+.3f} |"
        )
    return "\n".join([*lines, "", "</details>"])


def _again(records: RunRecords) -> str:
    return "\n".join(
        ["```sh", reproduce(records), "```", "", f"surgeon {__version__}; full page: report.html"]
    )

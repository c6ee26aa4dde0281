"""Records as text: tables for a terminal, and the sentences they hold.

Builds rich objects and prints nothing.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # `duplicate` shows a table and must not load torch for it
    from surgeon.checkpoint.manifest import Manifest
    from surgeon.outcome import Outcome, Pushed, StageSummary
    from surgeon.paired import Verdict
    from surgeon.probing.engine import ProbeResult
    from surgeon.recipe import Recipe
    from surgeon.selection import Selection

STYLE = {
    "improved": "bold green",
    "worse": "bold red",
    "equivalent": "bold",
    "undecided": "bold yellow",
    "no winner": "bold yellow",
}


def plain_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An aligned table without a frame; columns named in `numbers` are set right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def verdict_line(verdict: "Verdict") -> str:
    """A verdict's numbers in one line: scores, difference, interval, counts."""
    low, high = verdict.interval
    return (
        f"{verdict.base:.3f} -> {verdict.candidate:.3f} "
        f"({verdict.difference:+.3f}, {100 * verdict.level:.4g}% interval "
        f"{low:+.3f} to {high:+.3f}; "
        f"n {verdict.n}, {verdict.wins} won, {verdict.losses} lost, {verdict.ties} tied)"
    )


def selection_table(selection: "Selection") -> Table:
    """Every measured block, best first."""
    table = plain_table(
        "block", "proposed by", "score", "change", "interval", "won", "lost",
        numbers=("score", "change", "won", "lost"),
    )  # fmt: skip
    for entry in sorted(selection.tried, key=lambda e: -e.verdict.difference):
        low, high = entry.verdict.interval
        table.add_row(
            str(entry.block),
            entry.origin,
            f"{entry.verdict.candidate:.3f}",
            f"{entry.verdict.difference:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            str(entry.verdict.wins),
            str(entry.verdict.losses),
            style="bold" if entry.block == selection.winner else None,
        )
    return table


def outcome_table(outcome: "Outcome") -> RenderableType:
    """A run's summary: its stages, the measured blocks, and the conclusion."""
    stages = plain_table("stage", "seconds", "what and why", numbers=("seconds",))
    for stage in outcome.stages:
        seconds = "kept" if stage.reused else f"{stage.seconds:.1f}"
        stages.add_row(stage.name, seconds, stage.text)
    parts: list[RenderableType] = [stages, ""]
    if outcome.selection.tried:
        title = (
            f"measured on {outcome.selection.n} documents of {outcome.selection.task}, "
            f"split select; base {outcome.selection.base:.3f}"
        )
        parts += [Text(title, style="dim"), selection_table(outcome.selection), ""]
    parts.append(conclusion(outcome))
    if outcome.model is not None:
        parts.append(Text(f"model    {outcome.model}"))
    parts.append(Text(f"records  {outcome.folder}"))
    return Group(*parts)


def stage_line(stage: "StageSummary") -> str:
    """One finished stage in one line."""
    return f"{stage.name}: {stage.text} ({'kept' if stage.reused else f'{stage.seconds:.1f} s'})"


def conclusion(outcome: "Outcome") -> Text:
    """The last word of a run, with its numbers."""
    text = Text("verdict  ")
    text.append(outcome.conclusion, style=STYLE[outcome.conclusion])
    if outcome.verdict is not None:
        text.append(f"  {verdict_line(outcome.verdict)}")
    else:
        text.append(f"  {outcome.selection.reason}; no model was saved")
    return text


def probe_table(result: "ProbeResult", top: int) -> RenderableType:
    """The first `top` blocks of each scorer with their terms."""
    table = plain_table(
        "scorer", "circuit", "block", "score", "depth", "terms", numbers=("score", "depth")
    )
    for ranking in result.rankings:
        for entry in ranking.entries[:top]:
            terms = "  ".join(f"{name} {value:+.3g}" for name, value in entry.terms.items())
            table.add_row(
                ranking.scorer,
                ranking.circuit,
                str(entry.block),
                f"{entry.score:.3f}",
                f"{entry.depth_share:.0%}",
                terms,
            )
        if not ranking.entries:
            reason = ranking.unranked[0].reason if ranking.unranked else "no blocks"
            table.add_row(ranking.scorer, ranking.circuit, "-", "", "", reason)
    model = result.model
    head = Text(
        f"{model.model_type}, {model.depth} layers; {result.prompts.count} prompts "
        f"({result.prompts.name}), {result.tokens} tokens, {result.seconds:.1f} s",
        style="dim",
    )
    if not result.robustness:
        return Group(head, table)
    return Group(head, table, "", robustness_table(result))


def robustness_table(result: "ProbeResult") -> Table:
    """How each scorer's first block fares over other draws of the prompts."""
    table = plain_table(
        "scorer", "first", "draws", "prompts", "came first", "moved", "within 2", "score 95 %",
        numbers=("prompts", "moved", "within 2"),
    )  # fmt: skip
    for robust in result.robustness:
        for row in robust.rows:
            common = list(row.first.items())[:3]
            table.add_row(
                robust.scorer,
                str(robust.winner or "-"),
                f"{row.name} x{row.draws}",
                str(row.prompts),
                "  ".join(f"{block} {count / row.draws:.0%}" for block, count in common) or "-",
                f"{row.distance:.1f}",
                f"{row.within_2:.0%}",
                f"{row.low:.3f} to {row.high:.3f}",
            )
    return table


def manifest_table(manifest: "Manifest", out: Path, dry_run: bool) -> RenderableType:
    """What was written where."""
    table = plain_table("", "")
    table.show_header = False
    table.add_row(
        "plan", f"{manifest.plan}  ({manifest.plan.depth} -> {len(manifest.plan)} layers)"
    )
    table.add_row("out", f"{out}" + ("  (dry run: nothing was written)" if dry_run else ""))
    size = f"{manifest.total_bytes / 1e6:,.1f} MB in {len(manifest.files)} files"
    table.add_row("size", size)
    for edit in manifest.edits:
        table.add_row("config", f"{edit.key}: {edit.before} -> {edit.after}")
    if manifest.left:
        table.add_row("left out", ", ".join(manifest.left))
    for check in manifest.checks:
        table.add_row("checked", check)
    return table


def push_table(pushed: "Pushed") -> Table:
    """What went where, or would."""
    table = plain_table("", "")
    table.show_header = False
    made = pushed.upload
    total = sum(pushed.files.values())
    what = f"{len(pushed.files)} files, {total / 1e6:,.1f} MB: {', '.join(sorted(pushed.files))}"
    table.add_row("files", what)
    table.add_row("verdict", pushed.verdict)
    table.add_row("verified", pushed.verified)
    if made is None:
        table.add_row("would go to", f"{pushed.repository}  (dry run: nothing was sent)")
        return table
    table.add_row("url", made.url)
    table.add_row("commit", made.commit_url)
    if made.pull_request:
        table.add_row("pull request", made.pull_request)
    if made.attempts > 1:
        table.add_row("attempts", str(made.attempts))
    return table


def recipe_text(recipe: "Recipe", folder: Path) -> str:
    """What a run would do: the recipe as it would be run, and where the results would go."""
    return f"{recipe.to_yaml()}\nwould go to {folder}; nothing was read but headers or written"

"""A sweep as text: the best candidates, the race, and the scorers held against them."""

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.report.sweep_map import STOPPED
from surgeon.report.tables import STYLE, plain_table

if TYPE_CHECKING:  # tables must not load what measures
    from surgeon.sweeping.preview import SweepPlan
    from surgeon.sweeping.result import BeamStep, Effect, SweepResult


def sweep_table(result: "SweepResult", top: int = 10) -> RenderableType:
    """What was measured, the first `top` candidates, and what they mean.

    Args:
        result: the sweep.
        top: rows of the table; the winner and the Pareto front are listed beyond it.
    """
    parts: list[RenderableType] = [_head(result), effects_table(result, top)]
    hidden = len(result.effects) - len(_shown(result, top))
    if hidden > 0:
        parts.append(Text(f"and {hidden:,} more", style="dim"))
    if result.beam:
        parts += ["", beam_table(result)]
    if result.predictions:
        parts += ["", predictions_table(result)]
    return Group(*parts, "", _conclusion(result), _facts(result))


def _head(result: "SweepResult") -> Text:
    level = f"{100 * result.level:.4g}%"
    return Text(
        f"measured on {result.documents:,} documents of {', '.join(result.tasks)}, "
        f"split {result.split}; base {result.base:.3f}, "
        f"gold {_number(result.base_gold, '.3f')} nats; "
        f"{level} intervals over {len(result.effects):,} candidates",
        style="dim",
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _span(interval: tuple[float, float], form: str = "+.3f") -> str:
    return f"{_number(interval[0], form)} to {_number(interval[1], form)}"


def _shown(result: "SweepResult", top: int) -> list["Effect"]:
    return [
        effect
        for at, effect in enumerate(result.effects)
        if at < top or effect.pareto or effect.label == result.winner
    ]


def effects_table(result: "SweepResult", top: int) -> Table:
    """The first `top` candidates, the winner and the Pareto front; a star is on the front."""
    table = plain_table(
        "candidate", "", "layers", "change", "interval", "gold", "n", "won", "lost", "race",
        numbers=("layers", "change", "gold", "n", "won", "lost"),
    )  # fmt: skip
    if not any(effect.dropped for effect in result.effects):
        table.columns.pop()
    for effect in _shown(result, top):
        cells = [
            Text(effect.label),  # a label may hold brackets, which are no markup here
            "*" if effect.pareto else "",
            f"+{effect.added}",
            _number(effect.difference, "+.3f"),
            _span(effect.interval),
            _number(effect.gold_difference, "+.3f"),
            str(effect.n),
            str(effect.wins),
            str(effect.losses),
            Text(effect.dropped or ""),
        ]
        style = "bold" if effect.label == result.winner else "dim" if effect.dropped else None
        table.add_row(*cells[: len(table.columns)], style=style)
    return table


def beam_table(result: "SweepResult") -> Table:
    """What each width of composition gained."""
    table = plain_table(
        "blocks together", "change", "gain", "of", "held-out documents",
        numbers=("change", "gain", "of"),
    )  # fmt: skip
    for step in result.beam:
        table.add_row(
            Text(step.label),
            _number(step.difference, "+.3f"),
            _number(step.gain, "+.3f"),
            str(step.measured),
            _confirmed(step),
        )
    return table


def _confirmed(step: "BeamStep") -> Text:
    if step.confirmed is None:
        return Text("none left", style="dim")
    text = Text(step.confirmed.verdict, style=STYLE[step.confirmed.verdict])
    low, high = step.confirmed.interval
    return text.append(
        f" {step.confirmed.difference:+.3f} ({low:+.3f} to {high:+.3f}), n {step.confirmed.n}",
        style="not bold default",
    )


def predictions_table(result: "SweepResult") -> Table:
    """Each scorer's ranking against the measurement; last, what a random block would get."""
    table = plain_table(
        "scorer", "first", "change", "ranked", "off", "Spearman", "hit", "within 2", "regret",
        numbers=("change", "off"),
    )  # fmt: skip
    for each in result.predictions:
        table.add_row(
            Text(each.scorer),
            str(each.predicted),
            _number(each.predicted_difference, "+.3f"),
            f"{each.blocks} of {each.blocks + each.unranked}",
            str(each.distance),
            f"{_number(each.spearman, '+.2f')}, {_span(each.spearman_interval, '+.2f')}",
            _happened(each.hit, each.hit_share),
            _happened(each.within_two, each.within_two_share),
            f"{_number(each.regret, '.3f')}, {_span(each.regret_interval, '.3f')}",
            style="bold" if each.hit else None,
        )
    chance = result.predictions[0]
    table.add_row(
        "a random block", "", _number(chance.best_difference - chance.chance_regret, "+.3f"), "",
        "", "+0.00", f"{chance.chance_hit:.0%}", f"{chance.chance_within_two:.0%}",
        _number(chance.chance_regret, ".3f"), style="dim",
    )  # fmt: skip
    return table


def _happened(happened: bool, share: float) -> str:
    return f"{'yes' if happened else 'no'} {share:.0%}"


def _conclusion(result: "SweepResult") -> Text:
    text = Text("winner   ")
    text.append(result.winner or "none", style="bold" if result.winner else STYLE["no winner"])
    text.append(f"  {result.reason}")
    return text


def _facts(result: "SweepResult") -> Text:
    cost = result.cost
    lines = [
        f"looked   {result.documents:,} of {result.planned:,} documents; {STOPPED[result.stopped]}"
    ]
    if result.race is not None:
        race = result.race
        share = race.spent / max(race.full, 1)
        lines.append(
            f"race     {race.spent:,} of {race.full:,} evaluations ({share:.0%} of the full grid); "
            f"{len(race.survivors)} left, {'settled' if race.settled else 'not settled'}; "
            f"{race.guarantee}"
        )
    alone = cost.layer_forwards / max(cost.layer_forwards_alone, 1)
    lines.append(
        f"cost     {cost.evaluations:,} evaluations in {cost.seconds:.1f} s"
        f"{f', {cost.workers} workers' if cost.workers > 1 else ''}; {cost.reused:,} more from "
        f"the ledger; {alone:.0%} of the layer passes of one candidate at a time"
    )
    if result.ledger:
        lines.append(f"ledger   {result.ledger}")
    return Text("\n".join([*lines, *(f"note     {note}" for note in result.notes)]))


def sweep_plan_text(plan: "SweepPlan") -> str:
    """What a sweep would measure, in one line."""
    share = plan.layer_forwards / plan.layer_forwards_alone
    return (
        f"{plan.candidates:,} candidates of {plan.depth} layers on {plan.documents:,} documents: "
        f"{plan.evaluations:,} evaluations; {plan.layer_forwards:,} layer forwards a batch, "
        f"{share:.0%} of running each plan alone"
    )

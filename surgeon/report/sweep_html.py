"""`sweep.html`: one sweep on one self-contained page, for a screen, a phone and paper.

The page loads nothing. Its one script, allowed by its digest, lets a reader point at a
block, switch quantities and sort the table; without it everything is there to read, and
only less handy.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup  # jinja2 brings it

from surgeon.paired import Verdict
from surgeon.report import svg
from surgeon.report.page import asset, template
from surgeon.report.sweep_map import (
    STOPPED,
    WORDS,
    BlockMap,
    Mark,
    Quantity,
    block_maps,
    colour_reach,
    has_front,
    interval_text,
    marks,
    measured_line,
    percent,
    signed,
)
from surgeon.report.sweep_svg import HeatMap, pareto, shape
from surgeon.report.verdicts import evidence
from surgeon.sweeping.result import Effect, Prediction, SweepResult
from surgeon.version import __version__

DETAILS = (
    "candidate", "layers", "score", "difference", "interval", "gold, nats", "gold interval",
    "documents", "won / lost", "put first by", "race",
)  # fmt: skip
"""What is said of the block that a reader points at."""

BARS = 200
"""Rows of the table with a drawn interval; more would only make the page heavy."""


def render_sweep_html(result: SweepResult) -> str:
    """The page of a sweep; it depends on the record alone."""
    script = asset("sweep.js")
    styles = [asset(name) for name in ("report.css", "sweep.css")]
    details = [_details(effect, result.predictions) for effect in result.effects]
    best = next(at for at, e in enumerate(result.effects) if e.label == result.best.label)
    context = {
        "css": Markup("".join(styles)),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": embedded({"names": DETAILS, "rows": details, "first": best}),
        "version": __version__,
        "detail": list(zip(DETAILS, details[best], strict=True)),
        **_head(result),
        **_maps(result),
        **_effects(result),
        **_front(result),
        **prediction_rows(result),
        **_composition(result),
        "facts": _facts(result),
        "provenance": _provenance(result),
    }
    return template("sweep.html.j2").render(context)


def embedded(data: Any) -> Markup:
    """JSON that may stand inside a script element, whatever its strings hold.

    `<` is what could end the element or open a comment; U+2028 and U+2029 are line ends to
    some readers. All are written as escapes, which JSON reads back as what they were.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _details(effect: Effect, predictions: Sequence[Prediction]) -> list[str]:
    first = [p.scorer for p in predictions if p.predicted == effect.block]
    return [
        effect.label,
        f"+{effect.added}",
        signed(effect.score, sign=""),
        signed(effect.difference),
        interval_text(effect.interval),
        signed(effect.gold_difference),
        interval_text(effect.gold_interval),
        f"{effect.n:,}",
        f"{effect.wins} / {effect.losses}",
        ", ".join(first) or "no scorer",
        f"dropped: {effect.dropped}" if effect.dropped else "measured to the end",
    ]


def _head(result: SweepResult) -> dict[str, Any]:
    best = result.best
    numbers = [
        ("base", f"{result.base:.3f}"),
        ("best", best.label),
        ("its difference", signed(best.difference)),
        (f"{percent(result.level)} interval", interval_text(best.interval).replace(" to ", " … ")),
        ("documents", f"{result.documents:,}"),
        ("candidates", f"{len(result.effects):,}"),
    ]
    return {
        "title": f"Sweep of {Path(result.model).name or result.model}",
        "conclusion": f"winner {result.winner}" if result.winner else "no winner",
        "reason": result.reason,
        "measured": measured_line(result),
        "numbers": numbers,
        "notes": result.notes,
    }


def _maps(result: SweepResult) -> dict[str, Any]:
    predicted = marks(result)
    maps = block_maps(result)
    rows = {id(effect): at for at, effect in enumerate(result.effects)}
    shown = [effect for each in maps for effect in each.effects.values()]
    reach = {quantity: colour_reach(shown, quantity) for quantity in WORDS}
    panels = [
        {
            "title": each.title,
            "figures": [
                {
                    "quantity": quantity,
                    "caption": WORDS[quantity][0]
                    + (", nats per document" if quantity == "gold" else ""),
                    "reach": f"{reach[quantity]:.2g}",
                    "svg": _drawn(each, quantity, reach[quantity], rows, predicted),
                }
                for quantity in WORDS
            ],
        }
        for each in maps
    ]
    return {
        "panels": panels,
        "marks": [
            {"block": str(mark.block), "scorers": mark.scorers, "key": Markup(shape(mark.style))}
            for mark in predicted
        ]
        if any(each.plain for each in maps)
        else [],
        "any_dropped": any(effect.dropped for effect in shown),
        "any_gap": any(each.gaps for each in maps),
    }


def _drawn(
    each: BlockMap,
    quantity: Quantity,
    reach: float,
    rows: dict[int, int],
    predicted: Sequence[Mark],
) -> Markup:
    numbers = {block: rows[id(effect)] for block, effect in each.effects.items()}
    figure = HeatMap(each, quantity, reach, numbers, predicted if each.plain else [])
    return Markup(figure.draw())


def _effects(result: SweepResult) -> dict[str, Any]:
    reach = colour_reach(result.effects, "score")
    ends = [abs(x) for e in result.effects[:BARS] for x in e.interval if math.isfinite(x)]
    span = min(max([0.02, *ends]), max(0.05, 2 * reach))
    best = result.best.label
    rows = [
        {
            "row": at,
            "label": effect.label,
            "cells": [
                _sortable(effect.added, f"+{effect.added}"),
                _sortable(effect.difference, signed(effect.difference)),
                _sortable(effect.gold_difference, signed(effect.gold_difference)),
                _sortable(effect.n, f"{effect.n:,}"),
                _sortable(effect.wins - effect.losses, f"{effect.wins} / {effect.losses}"),
            ],
            "bar": Markup(svg.interval_bar(*effect.interval, effect.difference, span, "plain"))
            if at < BARS
            else "",
            "interval": interval_text(effect.interval),
            "pareto": effect.pareto,
            "dropped": effect.dropped or "",
            "chosen": effect.label == best,
        }
        for at, effect in enumerate(result.effects)
    ]
    return {"effects": rows, "span": f"{span:.2g}", "level": percent(result.level)}


def _sortable(value: float, text: str) -> dict[str, str]:
    return {"text": text, "value": f"{value:.6g}" if math.isfinite(value) else ""}


def _front(result: SweepResult) -> dict[str, Any]:
    if not has_front(result):
        return {"front": "", "front_below": ""}
    effects = [effect for effect in result.effects if math.isfinite(effect.difference)]
    rows = {effect.label: at for at, effect in enumerate(result.effects)}
    floor = -1.1 * colour_reach(effects, "score")
    below = sum(effect.difference < floor for effect in effects)
    return {
        "front": Markup(pareto(effects, rows, floor)),
        "front_below": f"{below} candidates worse than {floor:+.2f} are drawn there as arrows."
        if below
        else "",
    }


def prediction_rows(result: SweepResult) -> dict[str, Any]:
    """Each scorer against the measurement, for the table of a page."""
    rows = [
        {
            "scorer": each.scorer,
            "predicted": str(each.predicted),
            "gain": signed(each.predicted_difference),
            "ranked": f"{each.blocks} of {each.blocks + each.unranked}",
            "off": str(each.distance),
            "spearman": signed(each.spearman, 2),
            "interval": interval_text(each.spearman_interval, 2),
            "bar": Markup(svg.interval_bar(*each.spearman_interval, each.spearman, 1, "plain")),
            "kendall": signed(each.kendall, 2),
            "hit": _happened(each.hit, each.hit_share),
            "chance_hit": f"{each.chance_hit:.0%}",
            "within": _happened(each.within_two, each.within_two_share),
            "chance_within": f"{each.chance_within_two:.0%}",
            "regret": signed(each.regret, sign=""),
            "regret_interval": interval_text(each.regret_interval, sign=""),
            "chance_regret": signed(each.chance_regret, sign=""),
        }
        for each in result.predictions
    ]
    caption = ""
    if result.predictions:
        caption = (
            f"The best block measured is {result.predictions[0].best}. Correlations are over the "
            "blocks that a scorer ranked. Intervals and shares in brackets are of documents drawn "
            f"again, at {percent(result.predictions[0].level)}."
        )
    return {"predictions": rows, "prediction_caption": caption}


def _happened(happened: bool, share: float) -> str:
    return f"{'yes' if happened else 'no'} ({share:.0%})"


def _composition(result: SweepResult) -> dict[str, Any]:
    steps = [
        {
            "label": step.label,
            "difference": signed(step.difference),
            "gain": signed(step.gain),
            "measured": f"{step.measured:,}",
            "verdict": step.confirmed.verdict if step.confirmed else "",
            "confirmed": _held_out(step.confirmed),
        }
        for step in result.beam
    ]
    return {"beam": steps}


def _held_out(verdict: Verdict | None) -> str:
    """A step against the one before, on documents that chose nothing."""
    if verdict is None:
        return "no documents were left"
    return (
        f"{signed(verdict.difference)} ({interval_text(verdict.interval)}), n {verdict.n:,}; "
        f"{evidence(verdict)}"
    )


def _facts(result: SweepResult) -> list[str]:
    """How it was measured and what it cost, in sentences."""
    cost = result.cost
    alone = cost.layer_forwards / max(cost.layer_forwards_alone, 1)
    stopped = STOPPED[result.stopped]
    facts = [
        f"{result.documents:,} of {result.planned:,} documents of split {result.split}: {stopped}.",
        f"{cost.evaluations:,} evaluations of one candidate on one document in "
        f"{cost.seconds:.1f} s by {cost.workers} "
        f"{'worker' if cost.workers == 1 else 'workers'}; {cost.reused:,} more were taken from "
        "the ledger.",
        f"Shared layers: {cost.layer_forwards:,} layer passes, {alone:.0%} of the "
        f"{cost.layer_forwards_alone:,} that each candidate by itself would have taken.",
        f"Intervals of the difference in score hold at {percent(result.level)} for all "
        "candidates together and at every moment; those of the gold log-likelihood for all "
        "candidates together at the documents measured.",
        f"Differences below {result.margin:g} do not count as a gain.",
    ]
    if result.race is not None:
        race = result.race
        facts.append(
            f"Race: {race.spent:,} of {race.full:,} evaluations of the full grid "
            f"({race.spent / max(race.full, 1):.0%}); {len(race.survivors)} never shown to be "
            f"worse than another; {'settled' if race.settled else 'not settled'} "
            f"({race.stopped}). {race.guarantee[:1].upper()}{race.guarantee[1:]}."
        )
    return facts


def _provenance(result: SweepResult) -> list[tuple[str, str]]:
    sizes = "all" if result.sizes is None else ", ".join(map(str, result.sizes))
    return [
        ("model", result.model),
        ("layers", str(result.depth)),
        ("tasks", ", ".join(result.tasks)),
        ("split", result.split),
        ("sizes", sizes),
        ("times", ", ".join(map(str, result.times))),
        ("seed", str(result.seed)),
        ("device", f"{result.device}, {result.dtype}"),
        ("digest of the inputs", result.inputs),
        ("ledger", result.ledger or "none"),
    ]

"""Figures of a sweep: heat maps start x end, the Pareto front, prediction and measurement.

matplotlib (extra `plots`) is imported when a figure is made. Blue is better than the base,
orange is worse, and the middle of the scale is zero.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surgeon.errors import SurgeonError
from surgeon.report.canvas import figure_class, quiet
from surgeon.report.sweep_map import (
    BETTER,
    MIDDLE,
    WORDS,
    WORSE,
    BlockMap,
    Mark,
    Quantity,
    block_maps,
    colour_reach,
    front,
    has_front,
    marks,
    measured_line,
    percent,
    short,
    signed,
    spread,
    value_of,
)
from surgeon.sweeping.result import Effect, Prediction, SweepResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, PALE = "#222222", "#6b6b6b", "#b5b5b5"
MARKER = {
    "circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v", "plus": "P",
    "cross": "X", "star": "*", "right": ">",
}  # fmt: skip
FEW = 60
"""Up to so many candidates, each has its interval drawn beside the front."""


def save_sweep_plots(result: SweepResult, folder: Path) -> list[Path]:
    """Write the figures that a sweep has something to show in.

    Args:
        result: the sweep.
        folder: where to; made if it is not there.

    Returns:
        `sweep_heat.png` if single blocks were repeated, `sweep_pareto.png` if candidates
        add different numbers of layers, `sweep_predictions.png` if there are predictions.

    Raises:
        SurgeonError: matplotlib is not installed, or a file cannot be written.
    """
    figure_class()
    figures = {}
    if block_maps(result):
        figures["sweep_heat.png"] = heat_figure(result)
    if has_front(result):
        figures["sweep_pareto.png"] = pareto_figure(result)
    if result.predictions:
        figures["sweep_predictions.png"] = prediction_figure(result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / name, dpi=150)
    except OSError as error:
        raise SurgeonError(f"cannot write to `{folder}`: {error.strerror}") from error
    return [folder / name for name in figures]


def heat_figure(result: SweepResult) -> "Figure":
    """Maps of the difference in score and in gold log-likelihood, a row per way of repeating.

    Raises:
        SurgeonError: no candidate is a single block, or matplotlib is not installed.
    """
    maps = block_maps(result)
    if not maps:
        raise SurgeonError("this sweep repeated no single block, so there is no map to draw")
    handles = _legend_handles(maps, marks(result) if any(m.plain for m in maps) else [])
    # Height, not width, must be what limits the square maps: only then does the layout keep
    # room for titles and legend.
    side = 5.8 if len(maps) < 3 else 4.8
    size = 2.3 * side, side * len(maps) - 0.2 + 0.2 * math.ceil(len(handles) / 3)
    figure = figure_class()(figsize=size, layout="compressed")
    grid = figure.subplots(len(maps), 2, squeeze=False)
    quantities: tuple[Quantity, Quantity] = ("score", "gold")
    for row, each in zip(grid, maps, strict=True):
        for axes, quantity in zip(row, quantities, strict=True):
            draw_map(axes, each, marks(result) if each.plain else [], quantity)
    for column, quantity in zip(grid.T, quantities, strict=True):
        _share_colours(figure, column, maps, quantity)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8,
        labelcolor=INK,
    )  # fmt: skip
    title = f"{Path(result.model).name}: {result.depth} layers\n{measured_line(result)}"
    figure.suptitle(_plain(title), fontsize=11, color=INK)
    return figure


def draw_map(axes: Any, block_map: BlockMap, predicted: Sequence[Mark], quantity: Quantity) -> None:
    """One map: first layer across, end of the block up, colour for the difference.

    The image is a table of shape (ends, first layers) whose data coordinates are the layer
    numbers themselves; what was not measured is masked and stays without colour.
    """
    rows, columns = block_map.stops.stop, block_map.starts.stop
    table = np.full((rows, columns), np.nan)
    for block, effect in block_map.effects.items():
        table[block.stop, block.start] = value_of(effect, quantity)
    axes.imshow(np.ma.masked_invalid(table), origin="lower", cmap=_colours(), zorder=1)
    blanks = [b for b, e in block_map.effects.items() if not np.isfinite(value_of(e, quantity))]
    for block in {*block_map.gaps, *blanks}:
        _outline(axes, block, fill=False, hatch="/////", edgecolor=PALE, linewidth=0)
    for block, effect in block_map.effects.items():
        if effect.dropped and math.isfinite(effect.difference):
            size = 2 if block_map.roomy else 1.7
            at = block.start + 0.34, block.stop + 0.34
            axes.plot(*at, "o", color=INK, markersize=size, mew=0, zorder=4)
    for mark in predicted:
        lift = 0.16 if block_map.roomy else 0
        axes.plot(
            mark.block.start - lift, mark.block.stop + lift, MARKER[mark.style],
            color=INK, markeredgecolor="white", markersize=6.5 if block_map.roomy else 5, zorder=6,
        )  # fmt: skip
    if block_map.best:
        _outline(axes, block_map.best, fill=False, edgecolor="white", linewidth=4, zorder=5)
        _outline(axes, block_map.best, fill=False, edgecolor=INK, linewidth=2, zorder=5)
    _map_axes(axes, block_map, quantity)


def _map_axes(axes: Any, block_map: BlockMap, quantity: Quantity) -> None:
    starts, stops = block_map.starts, block_map.stops
    axes.set_xlim(starts.start - 0.5, starts.stop - 0.5)
    axes.set_ylim(stops.start - 0.5, stops.stop - 0.5)
    step = max(1, math.ceil(max(len(starts), len(stops)) / 18))
    axes.set_xticks(range(starts.start, starts.stop, step))
    axes.set_yticks(range(stops.start, stops.stop, step))
    axes.set_xlabel("first layer", fontsize=9, color=MUTED)
    axes.set_ylabel("end of the block (layer after its last)", fontsize=9, color=MUTED)
    title = f"{block_map.title}\n{WORDS[quantity][0]}"
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)
    quiet(axes, MUTED)


def _share_colours(
    figure: Any, column: Sequence[Any], maps: Sequence[BlockMap], quantity: Quantity
) -> None:
    """One symmetric colour scale for all maps of a quantity, so that they can be compared."""
    effects = [effect for each in maps for effect in each.effects.values()]
    reach = colour_reach(effects, quantity)
    for axes, block_map in zip(column, maps, strict=True):
        image = axes.images[0]
        image.set_clim(-reach, reach)
        if block_map.roomy:
            _numbers(axes, block_map, quantity, reach)
        values = [value_of(effect, quantity) for effect in block_map.effects.values()]
        beyond = any(v < -reach for v in values), any(v > reach for v in values)
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
        bar = figure.colorbar(image, ax=axes, extend=extend, shrink=0.85, pad=0.02, aspect=25)
        label = f"{WORDS[quantity][1]} (blue: better than the base, orange: worse)"
        bar.set_label(label, fontsize=8, color=MUTED)
        bar.ax.tick_params(labelsize=8, colors=MUTED)
        bar.outline.set_visible(False)


def _numbers(axes: Any, block_map: BlockMap, quantity: Quantity, reach: float) -> None:
    for block, effect in block_map.effects.items():
        value = value_of(effect, quantity)
        if math.isfinite(value):
            axes.text(
                block.start, block.stop - 0.22, signed(value, 2), ha="center", va="center",
                fontsize=6.5, color="white" if abs(value) > 0.6 * reach else INK, zorder=3,
            )  # fmt: skip


def _legend_handles(maps: Sequence[BlockMap], predicted: Sequence[Mark]) -> list[Any]:
    """What the signs mean; only those that are drawn."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bests = ", ".join(dict.fromkeys(str(m.best) for m in maps if m.best))
    label = f"best of the map: {bests}" if len(maps) == 1 else f"best of each map: {bests}"
    handles: list[Any] = [Patch(fill=False, edgecolor=INK, linewidth=2, label=label)]
    for mark in predicted:
        label = f"predicted {mark.block}: {_wrapped(mark.scorers)}"
        handles.append(
            Line2D([], [], marker=MARKER[mark.style], color=INK, linestyle="", label=_plain(label))
        )
    if any(effect.dropped for each in maps for effect in each.effects.values()):
        label = "dropped by the race: measured on fewer documents"
        handles.append(Line2D([], [], marker=".", color=INK, linestyle="", label=label))
    if any(each.gaps for each in maps):
        handles.append(
            Patch(fill=False, hatch="/////", edgecolor=PALE, linewidth=0, label="not measured")
        )
    return handles


def _wrapped(names: Sequence[str]) -> str:
    """Names in lines of three."""
    lines = [", ".join(names[at : at + 3]) for at in range(0, len(names), 3)]
    return ",\n".join(lines)


def pareto_figure(result: SweepResult) -> "Figure":
    """Gain against added layers: the front connected, with intervals; the others pale."""
    figure = figure_class()(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    effects = [effect for effect in result.effects if math.isfinite(effect.difference)]
    best, others = front(result), [effect for effect in effects if not effect.pareto]
    floor = -1.1 * colour_reach(effects, "score")
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1, label="base")
    _pale(axes, others, floor, intervals=len(effects) <= FEW)
    named = f"Pareto front, {percent(result.level)} intervals" if best else "_nothing gains"
    axes.plot(
        [e.added for e in best], [e.difference for e in best], "-o", color=BETTER, linewidth=1.8,
        markersize=6, zorder=4, label=named,
    )  # fmt: skip
    for effect in best:
        axes.plot([effect.added] * 2, effect.interval, color=BETTER, linewidth=2.2, zorder=3)
        axes.annotate(
            _plain(short(effect.label)), (effect.added, _top(effect)), xytext=(0, 4),
            textcoords="offset points", fontsize=8, color=INK, ha="center", zorder=5,
        )  # fmt: skip
    ends = [end for effect in best for end in effect.interval if math.isfinite(end)]
    shown = [0.0, *ends, *(max(effect.difference, floor) for effect in effects)]
    pad = 0.06 * (max(shown) - min(shown) or 1)
    axes.set_ylim(min(shown) - pad, max(shown) + 2 * pad)
    steps = sorted({effect.added for effect in effects})
    axes.set_xticks(steps[:: math.ceil(len(steps) / 18)])
    axes.margins(x=0.08)
    axes.set_xlabel("added layers", fontsize=9, color=MUTED)
    axes.set_ylabel(WORDS["score"][0], fontsize=9, color=MUTED)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4, labelcolor=INK)
    quiet(axes, MUTED)
    title = f"{Path(result.model).name}: gain against added layers\n{measured_line(result)}"
    axes.set_title(_plain(title), fontsize=10, loc="left", color=INK)
    return figure


def _top(effect: Effect) -> float:
    """Where its interval ends; no other candidate of the front has a point above."""
    return effect.interval[1] if math.isfinite(effect.interval[1]) else effect.difference


def _pale(axes: Any, effects: Sequence[Effect], floor: float, intervals: bool) -> None:
    """Candidates off the front; those below the axis as arrows at its end."""
    for style, below, label in (("o", False, "other candidates"), ("v", True, "")):
        places = [
            (x, effect)
            for x, effect in zip(spread(effects), effects, strict=True)
            if (effect.difference < floor) is below
        ]
        if not places:
            continue
        label = label or f"{len(places)} worse than {floor:+.2f}"
        heights = [max(effect.difference, floor) for _, effect in places]
        axes.plot([x for x, _ in places], heights, style, color=PALE, ms=4, zorder=2, label=label)
        for x, effect in places if intervals and not below else []:
            axes.plot([x, x], effect.interval, color="#dddddd", linewidth=1, zorder=1)


def prediction_figure(result: SweepResult) -> "Figure":
    """Each scorer against the measurement: rank correlation, hits, regret, with chance."""
    predictions = result.predictions
    figure = figure_class()(figsize=(12, 1.9 + 0.42 * len(predictions)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[1.2, 1, 1])
    rows = list(reversed(list(enumerate(reversed(predictions)))))
    for at, each in rows:
        colour = BETTER if each.spearman_interval[0] > 0 else MUTED
        left.plot(each.spearman_interval, [at, at], color=colour, linewidth=2)
        left.plot(each.spearman, at, "o", color=colour)
        middle.plot(each.within_two_share, at, "o" if each.within_two else "x", color=INK)
        middle.plot(each.chance_within_two, at, "|", color=WORSE, markersize=14, mew=2)
        right.plot(each.regret_interval, [at, at], color=INK, linewidth=2)
        right.plot(each.regret, at, "o", color=INK)
        right.plot(each.chance_regret, at, "|", color=WORSE, markersize=14, mew=2)
    left.axvline(0, color=WORSE, linewidth=2)
    left.set_yticks([at for at, _ in rows], [_plain(_row_name(each)) for _, each in rows])
    left.set_ylim(-0.6, len(rows) - 0.4)
    left.set_xlim(-1.05, 1.05)
    middle.set_xlim(-0.05, 1.05)
    right.axvline(0, color=PALE, linewidth=0.8, zorder=0)
    level = percent(predictions[0].level)
    titles = (
        f"Spearman correlation, {level} interval\norange: a random order",
        "first block within two layers of the best, share of\n"
        "bootstrap draws; x: not on all documents",
        f"regret: score lost against the best, {level} interval\norange: a random block",
    )
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=6)
        quiet(axes, MUTED)
    title = f"{Path(result.model).name}: prediction against measurement\n{measured_line(result)}"
    figure.suptitle(_plain(title), fontsize=10.5, color=INK)
    return figure


def _row_name(prediction: Prediction) -> str:
    gain = signed(prediction.predicted_difference)
    ranked = f"ranked {prediction.blocks} of {prediction.blocks + prediction.unranked} blocks"
    return f"{prediction.scorer}  {prediction.predicted} ({gain})\n{ranked}"


def _outline(axes: Any, block: Any, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    style.setdefault("zorder", 2)
    style.setdefault("clip_on", False)
    axes.add_patch(Rectangle((block.start - 0.5, block.stop - 0.5), 1, 1, **style))


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("worse to better", (WORSE, MIDDLE, BETTER))


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")

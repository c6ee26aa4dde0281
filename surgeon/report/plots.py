"""Figures of a probe: one curve per statistic over the layers, and a score per block.

The only module that imports matplotlib. Colours are from the Okabe-Ito palette, which
reads the same with the common kinds of colour blindness; nothing is told by colour alone.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surgeon.errors import SurgeonError, UsageError
from surgeon.report.canvas import figure_class, quiet
from surgeon.score import Ranking
from surgeon.stats import LayerStats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from surgeon.probing.engine import ProbeResult

INK, MUTED, LINE = "#222222", "#767676", "#0072B2"
SHADES = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")

CURVES = {
    "representation_change": "representation change",
    "self_similarity": "self-similarity",
    "norm_growth": "norm growth",
    "cross_example_variance": "cross-example variance",
    "representation_rank": "representation rank",
    "forward_similarity": "forward similarity",
    "attention_entropy": "attention entropy (nats)",
}

TRACK = 0.055
"""Height of one scorer's track, as a share of the axes."""

SUFFIXES = (".png", ".svg", ".html")


def save_probe_plots(result: "ProbeResult", path: Path) -> Path:
    """Write a probe's figures to a file.

    Args:
        result: the probe.
        path: `.png` or `.svg` (one figure: curves above, score maps below) or `.html` (a
            page that needs nothing else).

    Returns:
        The path.

    Raises:
        UsageError: another suffix.
        SurgeonError: matplotlib is not installed, or the file cannot be written.
    """
    check_plot_path(path)
    figure = probe_figure(result)
    try:
        if path.suffix == ".html":
            path.write_text(_page(result, figure), encoding="utf-8")
        else:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise SurgeonError(f"cannot write `{path}`: {error.strerror}") from error
    return path


def check_plot_path(path: Path) -> None:
    """Refuse a plot that could not be written, before anything is computed.

    Raises:
        UsageError: another suffix.
        SurgeonError: matplotlib is not installed, or the folder is not there.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"cannot plot to `{path}`; known: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise SurgeonError(f"cannot write `{path}`: no folder `{path.parent}`")
    figure_class()


def probe_figure(result: "ProbeResult") -> "Figure":
    """Curves of every measured statistic with the predicted blocks shaded, then score maps."""
    curves = [name for name in CURVES if np.isfinite(result.stats.row(name)).any()]
    rankings = result.rankings
    rows_above, rows_below = -(-len(curves) // 2), -(-len(rankings) // 2)
    figure = figure_class()(
        figsize=(11, 2.0 * rows_above + 2.1 * rows_below + 1.0), layout="constrained"
    )
    grid = figure.add_gridspec(
        rows_above + rows_below, 2, height_ratios=[1.0] * rows_above + [1.0] * rows_below
    )
    for at, name in enumerate(curves):
        draw_curve(figure.add_subplot(grid[at // 2, at % 2]), result.stats, name, rankings)
    for at, ranking in enumerate(rankings):
        draw_scores(figure, figure.add_subplot(grid[rows_above + at // 2, at % 2]), ranking)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))),
        frameon=False, fontsize=9,
    )  # fmt: skip
    model = Path(result.model.path).name
    figure.suptitle(
        f"{model}: {result.model.depth} layers, {result.prompts.count} prompts "
        f"({result.prompts.name}), {result.tokens} tokens",
        fontsize=12, color=INK,
    )  # fmt: skip
    return figure


def draw_curve(axes: Any, stats: LayerStats, name: str, rankings: Sequence[Ranking]) -> None:
    """One statistic over the layers; each scorer's first block as a band with its own track.

    The tracks lie below the data, so that scorers with the same block are all seen.
    """
    values = stats.row(name)
    axes.plot(
        range(stats.depth), values, color=LINE, marker="o", markersize=3.5, linewidth=1.5, zorder=3
    )
    predicted = [ranking for ranking in rankings if ranking.best]
    low, high = np.nanmin(values), np.nanmax(values)
    room = (high - low or 1.0) / (1 - TRACK * len(predicted) - 0.1)
    axes.set_ylim(low - room * (TRACK * len(predicted) + 0.05), high + 0.05 * room)
    for at, ranking in enumerate(predicted):
        assert ranking.best is not None
        ends = (ranking.best.block.start - 0.5, ranking.best.block.stop - 0.5)
        colour = SHADES[at % len(SHADES)]
        axes.axvspan(*ends, color=colour, alpha=0.12, linewidth=0, zorder=1)
        axes.axvspan(
            *ends, ymin=at * TRACK, ymax=(at + 0.8) * TRACK, color=colour, linewidth=0, zorder=2,
            label=f"{ranking.scorer} {ranking.best.block}",
        )  # fmt: skip
    axes.set_title(CURVES[name], fontsize=10, loc="left", color=INK)
    axes.set_xlabel("layer", fontsize=8, color=MUTED)
    _quiet(axes, stats.depth)
    axes.set_xlim(-0.5, stats.depth - 0.5)


def draw_scores(figure: Any, axes: Any, ranking: Ranking) -> None:
    """A map of scores: block start across, block size up; the best block outlined.

    Blocks that were not ranked are hatched, not coloured: they have no score.
    """
    from matplotlib.patches import Rectangle

    entries = ranking.entries
    every = [e.block for e in entries] + [u.block for u in ranking.unranked]
    sizes = sorted({len(block) for block in every})
    table = np.full((len(sizes), ranking.depth), np.nan)
    for entry in entries:
        table[sizes.index(len(entry.block)), entry.block.start] = entry.score
    image = axes.imshow(table, aspect="auto", origin="lower", cmap="cividis")
    if entries:
        bar = figure.colorbar(image, ax=axes, pad=0.01)
        bar.ax.tick_params(labelsize=7, colors=MUTED)
        bar.outline.set_visible(False)
    for blank in ranking.unranked:
        corner = (blank.block.start - 0.5, sizes.index(len(blank.block)) - 0.5)
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="#bbbbbb", linewidth=0)
        )
    title = f"{ranking.scorer}: no block could be ranked"
    if ranking.best:
        best = ranking.best.block
        corner = (best.start - 0.5, sizes.index(len(best)) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=2.5))
        title = f"{ranking.scorer}: best {best}, score {ranking.best.score:.3g}"
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_ylabel("size", fontsize=8, color=MUTED)
    axes.set_xlabel("first layer of the block (hatched: not ranked)", fontsize=8, color=MUTED)
    _quiet(axes, ranking.depth)
    axes.set_xlim(-0.5, ranking.depth - min(sizes) + 0.5)


def _quiet(axes: Any, depth: int) -> None:
    axes.set_xticks(range(0, depth, max(1, depth // 12)))
    quiet(axes, MUTED)


def figure_data_uri(figure: "Figure") -> str:
    """The figure as a PNG `data:` address, for pages that need no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(result: "ProbeResult", figure: "Figure") -> str:
    name = html.escape(Path(result.model.path).name)
    best = "; ".join(
        f"{ranking.scorer} {ranking.best.block}" for ranking in result.rankings if ranking.best
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>probe of {name}</title>"
        '<body style="font-family: system-ui, sans-serif; max-width: 70rem; margin: 2rem auto">'
        f"<h1>Probe of {name}</h1><p>First blocks: {html.escape(best)}</p>"
        f'<img style="width: 100%" alt="layer statistics and score maps; first blocks: '
        f'{html.escape(best)}" src="{figure_data_uri(figure)}"></body></html>\n'
    )

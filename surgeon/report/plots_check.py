"""Figures of a check: differences per task, and the interval as documents came in.

matplotlib (extra `plots`) is imported when a figure is made.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.errors import SurgeonError
from surgeon.report.canvas import figure_class

if TYPE_CHECKING:
    from surgeon.evals.result import CheckResult

COLOUR = {
    "improved": "#1b7837",
    "worse": "#b2182b",
    "equivalent": "#404040",
    "undecided": "#b8860b",
}
"""Readable in print and for the colour-blind; the verdict is also written out."""


def _figure(width: float, height: float) -> Any:
    return figure_class()(figsize=(width, height), layout="constrained")


def forest_plot(result: "CheckResult") -> Any:
    """Difference and interval of each task and of all together, with the margin shaded."""
    entries = [(each.task, each.verdict) for each in result.tasks]
    if len(entries) > 1:
        entries.append(("all tasks", result.verdict))
    figure = _figure(7.5, 1.4 + 0.45 * len(entries))
    axes = figure.subplots()
    margin = result.verdict.margin
    axes.axvspan(-margin, margin, color="#dddddd", zorder=0, label=f"margin ±{margin:g}")
    axes.axvline(0, color="black", linewidth=0.8)
    for at, (name, verdict) in enumerate(reversed(entries)):
        low, high = verdict.interval
        colour = COLOUR[verdict.verdict]
        axes.plot([low, high], [at, at], color=colour, linewidth=2)
        marker = "D" if name == "all tasks" else "o"
        axes.plot([verdict.difference], [at], marker, color=colour)
        text = f"{verdict.verdict}, n {verdict.n}, {verdict.base:.3f} → {verdict.candidate:.3f}"
        axes.annotate(text, (1.02, at), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_yticks(range(len(entries)), [name for name, _ in reversed(entries)])
    axes.set_ylim(-0.6, len(entries) - 0.4)
    axes.set_xlabel("candidate - base, with its interval")
    axes.legend(fontsize=7, loc="lower right", frameon=False)
    return figure


def running_plot(result: "CheckResult") -> Any:
    """Mean difference and confidence sequence against the number of documents seen.

    Raises:
        SurgeonError: the check's plan has no running interval.
    """
    if not result.trace:
        raise SurgeonError("this check has no running interval", hint="use --plan sequential")
    n, mean, low, high = zip(*result.trace, strict=True)
    figure = _figure(7.5, 3.6)
    axes = figure.subplots()
    margin, colour = result.verdict.margin, COLOUR[result.verdict.verdict]
    axes.axhspan(-margin, margin, color="#dddddd", zorder=0, label=f"margin ±{margin:g}")
    axes.axhline(0, color="black", linewidth=0.8)
    level = f"{result.verdict.level:.4g}"
    axes.fill_between(n, low, high, color=colour, alpha=0.25, label=f"sequence at level {level}")
    axes.plot(n, mean, color=colour, label="difference so far")
    edge = max(0.05, *(abs(value) for value in mean), 2 * margin) * 2
    axes.set_ylim(max(-1, -edge), min(1, edge))
    axes.set_xlabel("documents")
    axes.set_ylabel("candidate - base")
    axes.set_title(f"{result.verdict.verdict} after {result.documents} documents", fontsize=10)
    axes.legend(fontsize=7, frameon=False)
    return figure


def save_plots(result: "CheckResult", folder: Path) -> list[Path]:
    """Write `check_forest.png`, and `check_running.png` where there is a running interval."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"check_forest.png": forest_plot(result)}
    if result.trace:
        figures["check_running.png"] = running_plot(result)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in figures]

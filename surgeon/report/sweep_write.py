"""The files of a sweep: its record, its page, its figures."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from surgeon.errors import SurgeonError
from surgeon.report.files import put
from surgeon.report.sweep_html import render_sweep_html

if TYPE_CHECKING:
    from surgeon.sweeping.result import SweepResult

Plots = Literal["auto", "yes", "no"]
"""PNG figures: where matplotlib is installed, or an error without it, or never."""


def check_writable(folder: Path, plots: Plots) -> None:
    """Make the folder, and refuse what could not be written before anything is measured.

    Raises:
        SurgeonError: the folder cannot be made, or matplotlib is asked for and missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SurgeonError(f"cannot write to `{folder}`: {error.strerror}") from error
    if plots == "yes" and not _can_plot():
        raise SurgeonError("matplotlib is not installed", hint="pip install 'surgeon[plots]'")


def write_sweep(result: "SweepResult", folder: Path, plots: Plots = "auto") -> list[Path]:
    """Write `sweep.json`, `sweep.html` and the figures.

    Raises:
        SurgeonError: a file cannot be written.
    """
    try:
        files = [
            put(folder / "sweep.json", result.to_json()),
            put(folder / "sweep.html", render_sweep_html(result)),
        ]
        for figure in folder.glob("sweep_*.png"):
            figure.unlink()  # of an earlier sweep; not every sweep has every figure
        if plots != "no" and _can_plot():
            from surgeon.report.heatmap import save_sweep_plots

            files += save_sweep_plots(result, folder)
    except OSError as error:
        raise SurgeonError(f"cannot write to `{folder}`: {error.strerror}") from error
    return files


def _can_plot() -> bool:
    return find_spec("matplotlib") is not None

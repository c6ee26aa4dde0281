"""The readable results of a run, written into its folder."""

from pathlib import Path

from surgeon.report.card import CARD_NAME, render_card, run_facts
from surgeon.report.files import put
from surgeon.report.html import render_html
from surgeon.report.markdown import render_markdown
from surgeon.report.records import read_run


def write_reports(folder: Path) -> list[Path]:
    """Write `report.html`, `report.md` and, where a model was saved, its card.

    Args:
        folder: of a finished run.

    Returns:
        The files written.

    Raises:
        UsageError: the folder holds no finished run.
    """
    records = read_run(folder)
    texts = {
        folder / "report.html": render_html(records),
        folder / "report.md": render_markdown(records),
    }
    if records.saved is not None:
        texts[folder / "model" / CARD_NAME] = render_card(run_facts(records))
    return [put(path, text) for path, text in texts.items()]

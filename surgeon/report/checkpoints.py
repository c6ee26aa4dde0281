"""Tables about checkpoints: what one is, where a result can be used, whether it verified."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from surgeon.report.tables import plain_table

if TYPE_CHECKING:
    from surgeon.checkpoint.deploy import Deployment
    from surgeon.checkpoint.inspect import Inspection
    from surgeon.verification.result import Verification

STATE = {
    "safe": "green",
    "passed": "green",
    "unsafe": "bold red",
    "failed": "bold red",
    "needs metadata": "yellow",
    "unknown": "yellow",
    "not measured": "yellow",
}


def _styled(state: str) -> str:
    return f"[{STATE[state]}]{state}[/]"


def inspection_table(found: "Inspection") -> RenderableType:
    """A checkpoint in a dozen lines, and where the result of a plan can be used."""
    table = plain_table("", "")
    table.show_header = False
    count = found.parameters
    size = f"{count.total:,}"
    if count.active != count.total:
        size += f" ({count.active:,} for one token)"
    if found.revision:
        table.add_row("model", f"{found.id}@{found.revision}")
    else:
        table.add_row("model", found.id)
    table.add_row("family", f"{found.model_type} ({found.family_verdict})")
    table.add_row("parameters", size)
    table.add_row("size guard", found.guard)
    table.add_row("layers", f"{found.depth} under {found.stack}*")
    if found.prediction_layers:
        table.add_row("prediction layers", str(found.prediction_layers))
    for name, values in found.per_layer.items():
        table.add_row(name, _runs(values))
    table.add_row("head", "tied to the embedding" if found.tied_head else "of its own")
    types = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in found.dtypes.items())
    table.add_row("tensors", f"{types} in {len(found.files)} file(s)")
    if found.quantisation:
        table.add_row("quantisation", found.quantisation)
    table.add_row("chat template", "yes" if found.chat_template else "no")
    if found.made_from:
        table.add_row("made from", found.made_from)
    if found.deployment is None:
        return table
    return Group(table, "", f"result of layers {found.plan}", deployment_table(found.deployment))


def _runs(values: list[object]) -> str:
    """A per-layer list with repetitions counted: `a x5, b, a x5`."""
    runs: list[tuple[object, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return ", ".join(f"{value} x{count}" if count > 1 else str(value) for value, count in runs)


def deployment_table(report: "list[Deployment]") -> Table:
    """One row per engine, with its reasons."""
    table = plain_table("engine", "state", "why")
    for entry in report:
        table.add_row(entry.target, _styled(entry.state), "; ".join(entry.reasons) or "-")
    return table


def verification_table(found: "Verification") -> Table:
    """Each check, its state and what was compared."""
    table = plain_table("check", "state", "detail")
    for check in found.checks:
        table.add_row(check.name, _styled(check.state), check.detail)
    return table

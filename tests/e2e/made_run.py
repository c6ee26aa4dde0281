"""One finished run of a small demo recipe, made once a session and copied by who changes it."""

import tempfile
from functools import cache
from pathlib import Path

SETTINGS = {
    "probe.limit": "20",
    "probe.scorers": "[stability, anomaly]",
    "select.documents": "40",
    "select.candidates": "{stability: 1, anomaly: 1}",
    "select.refine": "false",
    "check.documents": "120",
    "cost.repeats": "2",
}


@cache
def made_run() -> Path:
    from surgeon.hub import resolve
    from surgeon.pipeline import run
    from surgeon.recipe import load_recipe

    recipe = load_recipe("demo", SETTINGS)
    folder = Path(tempfile.mkdtemp(prefix="surgeon-run-")) / "demo"
    run(recipe, resolve(recipe.model), folder)
    return folder

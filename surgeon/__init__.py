"""Model surgery on small language models, applied honestly.

>>> from pathlib import Path
>>> import surgeon
>>> base = surgeon.resolve("demo:planted")
>>> found = surgeon.probe(base.path, surgeon.load_prompts("task:cups", limit=20))
>>> block = found.rankings[0].best.block
>>> plan = surgeon.LayerPlan.duplicate(found.model.depth, block)
>>> made = surgeon.duplicate(surgeon.Checkpoint.open(base.path), plan, Path("upgraded"))
>>> surgeon.verify(Path("upgraded"), base=base.path).passed
True
>>> surgeon.check(base.path, Path("upgraded"), ["cups"], limit=200).verdict.verdict
'improved'

The whole chain from a recipe, and its model on the Hub:

>>> recipe = surgeon.load_recipe("demo", {"select.documents": "50", "select.refine": "false"})
>>> outcome = surgeon.run(recipe, surgeon.resolve(recipe.model), Path("runs/demo"))
>>> outcome.conclusion
'improved'
>>> surgeon.push(outcome.folder, "me/upgraded", dry_run=True).verdict
'improved'

Names are loaded on first use, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from surgeon.version import __version__

if TYPE_CHECKING:
    from surgeon.block import Block as Block
    from surgeon.checkpoint.inspect import Inspection as Inspection
    from surgeon.checkpoint.inspect import inspect as inspect
    from surgeon.checkpoint.manifest import Manifest as Manifest
    from surgeon.checkpoint.rewrite import duplicate as duplicate
    from surgeon.checkpoint.store import Checkpoint as Checkpoint
    from surgeon.errors import SurgeonError as SurgeonError
    from surgeon.evals.check import check as check
    from surgeon.evals.result import CheckResult as CheckResult
    from surgeon.hub import resolve as resolve
    from surgeon.outcome import Outcome as Outcome
    from surgeon.outcome import Pushed as Pushed
    from surgeon.paired import Verdict as Verdict
    from surgeon.pipeline import run as run
    from surgeon.plan import LayerPlan as LayerPlan
    from surgeon.probing.engine import ProbeResult as ProbeResult
    from surgeon.probing.engine import probe as probe
    from surgeon.probing.prompts import load_prompts as load_prompts
    from surgeon.recipe import Recipe as Recipe
    from surgeon.recipe import load_recipe as load_recipe
    from surgeon.release import push as push
    from surgeon.score.base import Ranking as Ranking
    from surgeon.selection import Selection as Selection
    from surgeon.stats import LayerStats as LayerStats
    from surgeon.sweeping.result import SweepResult as SweepResult
    from surgeon.sweeping.sweep import sweep as sweep
    from surgeon.verification.checks import verify as verify

_HOMES = {
    "Block": "block",
    "CheckResult": "evals.result",
    "Checkpoint": "checkpoint.store",
    "Inspection": "checkpoint.inspect",
    "LayerPlan": "plan",
    "LayerStats": "stats",
    "Manifest": "checkpoint.manifest",
    "Outcome": "outcome",
    "ProbeResult": "probing.engine",
    "Pushed": "outcome",
    "Ranking": "score.base",
    "Recipe": "recipe",
    "Selection": "selection",
    "SurgeonError": "errors",
    "SweepResult": "sweeping.result",
    "Verdict": "paired",
    "check": "evals.check",
    "duplicate": "checkpoint.rewrite",
    "inspect": "checkpoint.inspect",
    "load_prompts": "probing.prompts",
    "load_recipe": "recipe",
    "probe": "probing.engine",
    "push": "release",
    "resolve": "hub",
    "run": "pipeline",
    "sweep": "sweeping.sweep",
    "verify": "verification.checks",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `surgeon` has no attribute `{name}`")
    return getattr(import_module(f"surgeon.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

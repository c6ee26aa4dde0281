"""Every shipped recipe end to end, on a tiny random model of its own family."""

import json

import pytest
from recipe_models import KINDS, save_like
from typer.testing import CliRunner

from surgeon.cli.app import app
from surgeon.recipe import load_recipe, recipe_names

pytestmark = pytest.mark.slow
OWN = ("demo", "control", "sweep", "pipeline")
SMALL = (
    "probe.limit=6", "select.documents=8", "select.budget=3",
    "select.candidates={stability: 1, anomaly: 1, decisiveness: 1, consensus: 1}",
    "check.documents=12",
)  # fmt: skip


def run(recipe, folder, *more):
    settings = [part for pair in SMALL for part in ("--set", pair)]
    arguments = ["run", recipe, "--out", str(folder), "--keep", "--offline", "--json"]
    done = CliRunner().invoke(app, [*arguments, *settings, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def body(name):
    recipe = load_recipe(name).model_dump(mode="json")
    return {key: value for key, value in recipe.items() if key not in ("name", "model")}


def test_recipes_of_model_families_differ_in_the_model_alone():
    named = [name for name in recipe_names() if name not in OWN]
    assert {kind for kind in KINDS for name in named if name.startswith(kind)} == set(KINDS)
    assert all(any(name.startswith(kind) for kind in KINDS) for name in named)
    assert all(body(name) == body(named[0]) for name in named)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_runs_on_a_tiny_model_of_its_family(kind, tmp_path):
    """The recipes of one family are the same but for the model, so one of each is run."""
    name = next(name for name in recipe_names() if name.startswith(kind))
    model = save_like(name, tmp_path / "model")
    outcome = run(name, tmp_path / "run", "--model", str(model))
    assert outcome["conclusion"] in ("improved", "worse", "equivalent", "undecided")
    assert len(outcome["selection"]["tried"]) >= 1
    for written in ("report.html", "report.md", "model/README.md", "model/surgeon.json"):
        assert (tmp_path / "run" / written).is_file(), written
    checks = json.loads((tmp_path / "run/verify.json").read_text())["checks"]
    assert {each["state"] for each in checks} == {"passed"}


@pytest.mark.parametrize("name", ["control", "pipeline"])
def test_the_recipes_of_the_demo_models_run(name, tmp_path):
    outcome = run(name, tmp_path / "run")
    assert outcome["recipe"]["name"] == name and outcome["conclusion"] != "no winner"


def test_the_sweep_recipe_measures_every_block(tmp_path):
    more = ["--set", "select.candidates={anomaly: 1000}", "--set", "select.budget=1000"]
    outcome = run("sweep", tmp_path / "run", *more)
    assert len(outcome["selection"]["tried"]) == 3 * 12 - 9

"""Recipes: strictness, overrides, and messages that name file, line and key."""

import pytest

from surgeon.errors import RecipeError, UnknownName, UsageError
from surgeon.recipe import Recipe, find_recipe, load_recipe, recipe_names


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid_and_say_how_they_are_run(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    header = find_recipe(name).read_text(encoding="utf-8")
    assert header.startswith("# ") and f"surgeon run {name}" in header


def test_every_problem_is_reported_at_once_with_line_and_nearest_key(tmp_path):
    path = write(
        tmp_path,
        "model: x\nprobe:\n  promts: a\n  sizes: [0, x]\nselect:\n  candidates: top2\nchck: 1\n",
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith("5 problems in the recipe")
    for part in (
        f"{path}:3: `probe.promts`: unknown key; did you mean `prompts`?",
        f"{path}:4: `probe.sizes.0`",
        f"{path}:4: `probe.sizes.1`",
        f"{path}:6: `select.candidates`: expected `top1` or a count for each scorer",
        f"{path}:7: `chck`: unknown key; did you mean `check`?",
    ):
        assert part in message


def test_settings_override_the_file(tmp_path):
    path = write(tmp_path, "model: x\ncheck: {documents: 10}\n")
    recipe = load_recipe(path, {"check.documents": "500", "select.candidates": "top1", "seed": "3"})
    assert (recipe.check.documents, recipe.select.candidates, recipe.seed) == (500, "top1", 3)
    with pytest.raises(RecipeError, match=r"`check\.documnts`: unknown key; did you mean"):
        load_recipe(path, {"check.documnts": "5"})
    with pytest.raises(RecipeError, match="not a section"):
        load_recipe(path, {"model.x": "5"})
    with pytest.raises(RecipeError, match="not a YAML value"):
        load_recipe(path, {"seed": "[1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no recipe"),
        ("- a\n", "holds no recipe"),
        ("model: [\n", "not a readable YAML"),
        ("model: a\nmodel: b\n", "twice"),
        ("seed: 1\n", "`model`"),
        ("model: x\ncheck: {documents: 0}\n", "got `0`"),
        ("model: x\ncheck: {margin: -1}\n", "got `-1`"),
        ("model: x\ncheck: {plan: bayes}\n", "got `bayes`"),
        ("model: x\nselect: {candidates: {stability: -1}}\n", "count for each scorer"),
        ("model: !!python/object/apply:os.system [ls]\n", "not a readable YAML"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text))


def test_unknown_recipes(tmp_path):
    with pytest.raises(UnknownName, match="control, demo"):
        load_recipe("dmo")
    with pytest.raises(UsageError, match="no recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"model: \xff\n")
    with pytest.raises(RecipeError, match="not a readable"):
        load_recipe(str(path))


def test_a_recipe_as_run_reads_back(tmp_path):
    recipe = load_recipe("demo", {"seed": "5"})
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe

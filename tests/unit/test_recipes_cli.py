"""`surgeon recipes`, `help` and `env` from the command line."""

import json

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from surgeon import hub
from surgeon.catalogue import recipe_schema
from surgeon.cli.app import app
from surgeon.errors import SurgeonError
from surgeon.recipe import find_recipe, load_recipe, recipe_names
from surgeon.topics import TOPICS

FAMILIES = [
    "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen3-0.6b", "qwen3-1.7b",
    "tinyllama-1.1b", "smollm2-135m", "smollm2-360m", "smollm2-1.7b", "llama-3.2-1b",
    "llama-3.2-3b", "gemma-3-1b", "olmo-2-1b", "pythia-410m", "pythia-1.4b",
]  # fmt: skip


def call(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_ls_lists_all_with_their_models():
    done = call("recipes", "ls", "--json")
    listed = {each["name"]: each for each in json.loads(done.stdout)["recipes"]}
    assert set(listed) == {*FAMILIES, "demo", "control", "sweep", "pipeline"}
    assert listed["qwen3-0.6b"]["model"] == "Qwen/Qwen3-0.6B"
    assert call("recipes", "ls", "-q").stdout.split() == recipe_names()
    assert all(name in call("recipes", "ls").stdout for name in recipe_names())


@pytest.mark.parametrize("name", FAMILIES)
def test_headers_are_honest_about_cost_and_evidence(name):
    header = find_recipe(name).read_text("utf-8").partition("\nmodel:")[0]
    for part in ("Downloads:", "Memory:", "Time:", "not measured", "was not run", "Literature:"):
        assert part in header, part
    assert "250 questions" in header or "none for this model" in header


def test_show_and_cp(tmp_path):
    assert call("recipes", "show", "demo").stdout == find_recipe("demo").read_text("utf-8")
    assert json.loads(call("recipes", "show", "demo", "--json").stdout)["model"] == "demo:planted"
    target = tmp_path / "mine.yaml"
    assert call("recipes", "cp", "demo", target).exit_code == 0
    assert target.read_text("utf-8") == find_recipe("demo").read_text("utf-8")
    assert load_recipe(str(target)).name == "mine"
    again = call("recipes", "cp", "sweep", target)
    assert again.exit_code == 3 and "--force" in again.stderr
    assert call("recipes", "cp", "sweep", target, "-f").exit_code == 0
    assert call("recipes", "cp", "demo", tmp_path, "-q").stdout.strip() == str(
        tmp_path / "demo.yaml"
    )
    assert call("recipes", "cp", "demo", tmp_path / "no/where.yaml").exit_code == 2


def test_validate_reports_every_problem_of_every_file(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("model: x\nchck: 1\n")
    two.write_text("model: x\nselect:\n  task: deducton\nprobe:\n  scorers: [stabilty]\n")
    done = call("recipes", "validate", "demo", one, two, "--json")
    assert done.exit_code == 2
    said = json.loads(done.stdout)["error"]
    for part in (f"{one}:2: `chck`", "`check`", "`deducton`", "`deduction`", "`stabilty`"):
        assert part in said, part
    good = call("recipes", "validate", *recipe_names(), "--json")
    assert [each["name"] for each in json.loads(good.stdout)["recipes"]] == recipe_names()
    assert call("recipes", "validate", "demo", "--set", "check.documents=0").exit_code == 2


def test_the_schema_accepts_what_the_loader_accepts(tmp_path):
    schema = json.loads(call("recipes", "schema").stdout)
    assert schema == recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in recipe_names():
        validator.validate(yaml.safe_load(find_recipe(name).read_text("utf-8")))
    for wrong in ({}, {"model": "x", "chck": 1}, {"model": "x", "probe": {"sizes": [0]}}):
        assert not validator.is_valid(wrong), wrong
        path = tmp_path / "wrong.yaml"
        path.write_text(yaml.safe_dump(wrong))
        with pytest.raises(SurgeonError):
            load_recipe(str(path))


def test_help_topics():
    for topic, text in TOPICS.items():
        assert call("help", topic).stdout.split() == text.split()
        assert json.loads(call("help", topic, "--json").stdout)["text"] == text
    assert all(topic in call("help").stdout for topic in TOPICS)
    wrong = call("help", "exit-code")
    assert wrong.exit_code == 2 and "did you mean `exit-codes`" in wrong.stderr


def test_exit_codes_are_those_of_the_errors():
    codes = {line.split()[0] for line in TOPICS["exit-codes"].splitlines() if line[:1].isdigit()}
    classes = [SurgeonError]
    for each in classes:
        classes += each.__subclasses__()
    raised = {str(each.exit_code) for each in classes if each.__module__ == "surgeon.errors"}
    assert raised | {"0", "130"} == codes


def test_env_says_whether_there_is_a_token_and_never_which(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_SecretSecretSecret")
    done = call("env", "--json")
    found = json.loads(done.stdout)
    assert found["schema"] == "surgeon.env/1" and found["logged_in"] is True
    assert found["packages"]["torch"] and found["cpus"] >= 1
    assert "hf_Secret" not in done.output + call("env").output
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert not hub.is_logged_in()

"""Every shipped recipe end to end, on a tiny random model of its own family."""

import json

import pytest
from recipe_models import KINDS, kind_of, save_like
from transformers import AutoTokenizer
from typer.testing import CliRunner

from surgeon.cli.app import app
from surgeon.cost import measure
from surgeon.cost.__main__ import _Subject
from surgeon.recipe import load_recipe, recipe_names

pytestmark = pytest.mark.slow
DEMO = ("demo", "control", "pipeline")
SWEEP = "sweep"
FAMILIES = [name for name in recipe_names() if name not in (*DEMO, SWEEP)]
SMALL = (
    "probe.limit=6", "select.documents=8", "select.budget=3",
    "select.candidates={stability: 1, anomaly: 1, decisiveness: 1, consensus: 1}",
    "check.documents=12", "cost.tokens=4", "cost.repeats=1",
)  # fmt: skip


class HereModel:
    """`measure._Model` without a process of its own: starting forty would take minutes."""

    def __init__(self, path, device, dtype):
        self.subject = _Subject(str(path), device, dtype)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def answer(self):
        return self.subject.about()

    def ask(self, question):
        return self.subject.turn(**question) if question else {"peak": self.subject.peak()}


@pytest.fixture(autouse=True)
def cost_is_measured_here(monkeypatch):
    monkeypatch.setattr(measure, "_Model", HereModel)


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
    assert {kind_of(name) for name in FAMILIES} == set(KINDS)
    assert all(body(name) == body(FAMILIES[0]) for name in FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_runs_on_a_tiny_model_of_its_family(name, tmp_path):
    model = save_like(name, tmp_path / "model")
    outcome = run(name, tmp_path / "run", "--model", str(model))
    assert outcome["recipe"]["name"] == name
    assert outcome["conclusion"] in ("improved", "worse", "equivalent", "undecided")
    assert len(outcome["selection"]["tried"]) >= 1
    assert outcome["cost"]["missing"] is None
    assert outcome["cost"]["candidate"]["weights"] > outcome["cost"]["base"]["weights"]
    for written in ("report.html", "report.md", "model/README.md", "model/surgeon.json"):
        assert (tmp_path / "run" / written).is_file(), written
    checks = json.loads((tmp_path / "run/verify.json").read_text())["checks"]
    assert {each["state"] for each in checks} == {"passed"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_models_are_of_the_architecture_and_tokenizer_class(kind, tmp_path):
    name = next(each for each in FAMILIES if kind_of(each) == kind)
    folder = save_like(name, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    architecture, tokenizer, tied = REAL[kind]
    assert config["architectures"] == [architecture] and config["num_hidden_layers"] == 6
    assert config["tie_word_embeddings"] is tied
    stored = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert stored == (GENERIC if tokenizer == "PreTrainedTokenizerFast" else tokenizer)
    # For some model types the library takes its generic class, whatever the file says.
    assert type(AutoTokenizer.from_pretrained(folder)).__name__ in (tokenizer, GENERIC)


REAL = {
    "qwen2.5": ("Qwen2ForCausalLM", "Qwen2Tokenizer", True),
    "qwen3": ("Qwen3ForCausalLM", "Qwen2Tokenizer", True),
    "tinyllama": ("LlamaForCausalLM", "LlamaTokenizer", False),
    "smollm2": ("LlamaForCausalLM", "GPT2Tokenizer", True),
    "llama-3.2": ("LlamaForCausalLM", "PreTrainedTokenizerFast", True),
    "gemma-3": ("Gemma3ForCausalLM", "GemmaTokenizer", True),
    "olmo-2": ("Olmo2ForCausalLM", "GPT2Tokenizer", False),
    "pythia": ("GPTNeoXForCausalLM", "GPTNeoXTokenizer", False),
}
"""Kind -> architecture, tokenizer class, tied embeddings of the published models."""

GENERIC = "TokenizersBackend"
"""The name that transformers 5 gives `PreTrainedTokenizerFast`."""


@pytest.mark.parametrize("name", DEMO)
def test_the_recipes_of_the_demo_models_run(name, tmp_path):
    outcome = run(name, tmp_path / "run")
    assert outcome["recipe"]["name"] == name and outcome["conclusion"] != "no winner"


def test_the_sweep_recipe_measures_every_block(tmp_path):
    more = ["--set", "select.candidates={anomaly: 1000}", "--set", "select.budget=1000"]
    outcome = run(SWEEP, tmp_path / "run", *more)
    assert len(outcome["selection"]["tried"]) == 3 * 12 - 9

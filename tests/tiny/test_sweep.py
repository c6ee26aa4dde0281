"""A sweep of the demo model against models saved and loaded one by one, and its promises."""

import json
import subprocess
import sys

import numpy as np
import pytest
from saved import save_plan

from surgeon.block import Block
from surgeon.errors import SurgeonError, UsageError
from surgeon.evals.backends import PlainBackend
from surgeon.evals.harness import build, lm_of, load_tasks
from surgeon.evals.stream import draw
from surgeon.hub import DEMO
from surgeon.models import load_model, load_tokenizer
from surgeon.probing.engine import probe
from surgeon.probing.prompts import load_prompts
from surgeon.sweeping.ledger import Unit
from surgeon.sweeping.moves import Candidate, grid
from surgeon.sweeping.prediction import predictions
from surgeon.sweeping.sweep import sweep
from surgeon.sweeping.work import Setting, Worker

PLANTED = DEMO / "planted"
DEPTH = 12


def lines_of(path):
    """Ledger rows as {(plan, document): (score, gold, chosen)}; every row must be there once."""
    found = {}
    for text in path.read_text().splitlines():
        entry = json.loads(text)
        if "plan" not in entry:
            continue
        columns = (entry[name] for name in ("documents", "score", "gold", "chosen"))
        for document, *row in zip(*columns, strict=True):
            assert (entry["plan"], document) not in found
            found[entry["plan"], document] = tuple(row)
    return found


def without_cost(result):
    data = result.to_dict()
    return {key: value for key, value in data.items() if key not in ("cost", "ledger", "notes")}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """All 27 blocks on 128 documents, float32, and the ledger."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.jsonl"
    result = sweep(PLANTED, ["cups"], documents=128, ledger=path, dtype="float32")
    return result, path


@pytest.mark.slow
def test_every_row_is_that_of_a_model_saved_loaded_and_scored_alone(swept, tmp_path):
    """To the last bit: sharing layers with other plans changes nothing."""
    _, path = swept
    shared = Worker(Setting(str(PLANTED), ("cups",), "select", "cpu", "float32", 2**30))
    tasks = list(shared.tasks.values())
    documents = tuple(draw(tasks, {"cups": 1.0}, 0)[:64])
    rows, compared = lines_of(path), 0
    for at, candidate in enumerate([Candidate(), *grid(DEPTH, [3, 4, 5])]):
        plan = candidate.plan(DEPTH)
        folder = save_plan(PLANTED, plan, tmp_path / str(at))
        alone = Worker(Setting(str(folder), ("cups",), "select", "cpu", "float32", 2**30), tasks)
        for line in alone.answer(Unit((":",), documents)):
            for document, row in zip(line.documents, line.rows, strict=True):
                assert rows[str(plan), document] == tuple(row), (str(candidate), document)
                compared += 1
    assert compared == 28 * 64


@pytest.mark.slow
def test_every_block_equals_a_model_saved_and_loaded(swept, tmp_path):
    """Score, answer and log-likelihood of every document, by lm-eval's own model class."""
    _, path = swept
    rows = lines_of(path)
    documents = sorted({document for _, document in rows})[:12]
    prompts = build(load_tasks(["cups"], "select")[0], documents)
    for at, candidate in enumerate([Candidate(), *grid(DEPTH, [3, 4, 5])]):
        plan = candidate.plan(DEPTH)
        folder = save_plan(PLANTED, plan, tmp_path / str(at))
        model = load_model(folder, dtype="float32")
        alone = PlainBackend(lm_of(model, load_tokenizer(folder), 16))
        for row in alone.rows(prompts, {"alone": plan})["alone"]:
            score, gold, chosen = rows[str(plan), row.doc_id]
            assert (score, chosen) == (row.score, row.chosen), (str(candidate), row.doc_id)
            assert gold == pytest.approx(row.gold_loglikelihood, abs=1e-5)


def test_the_planted_block_wins_and_everything_is_counted(swept):
    result, path = swept
    assert result.winner == "4:8" and result.best.block == Block(4, 8)
    assert result.best.interval[0] > 0.1 and result.best.gold_interval[0] > 0
    rows = lines_of(path)
    assert len(rows) == 28 * 128 == result.cost.evaluations
    base = [row[0] for (plan, _), row in rows.items() if plan == ":"]
    assert result.base == pytest.approx(np.mean(base))
    for effect in result.effects:
        own = [row for (plan, _), row in rows.items() if plan == str(effect.plan)]
        assert effect.score == pytest.approx(np.mean([row[0] for row in own]))
        assert effect.difference == pytest.approx(effect.score - result.base)
        assert effect.gold_difference == pytest.approx(
            np.mean([row[1] for row in own]) - result.base_gold
        )
    front = {
        one.label
        for one in result.effects
        if one.difference > 0
        and not any(
            (other.difference, -other.added) != (one.difference, -one.added)
            and other.difference >= one.difference
            and other.added <= one.added
            for other in result.effects
        )
    }
    assert {effect.label for effect in result.effects if effect.pareto} == front != set()


def test_a_finished_ledger_answers_without_the_model(swept, monkeypatch):
    result, path = swept
    monkeypatch.setattr("surgeon.sweeping.work.load_model", None)
    again = sweep(PLANTED, ["cups"], documents=128, ledger=path, dtype="float32")
    assert again.cost.evaluations == 0 and again.cost.reused == 28 * 128
    assert without_cost(again) == without_cost(result)


def test_more_documents_and_more_blocks_use_what_is_there(swept, tmp_path):
    _, path = swept
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    more = sweep(PLANTED, ["cups"], sizes=[3, 4, 5, 6], documents=192, ledger=copy, dtype="float32")
    assert more.cost.evaluations == 35 * 192 - 28 * 128
    assert lines_of(copy).items() >= lines_of(path).items()


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"split": "calibrate"}])
def test_changed_inputs_never_take_old_rows(swept, tmp_path, change):
    _, path = swept
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    other = sweep(
        PLANTED, ["cups"], **{"sizes": [4], "documents": 32, "ledger": copy, "dtype": "float32"}
        | change
    )  # fmt: skip
    assert other.cost.evaluations == 10 * 32 and other.cost.reused == 0


def test_a_race_finds_it_with_less_and_says_what_it_is_worth(swept, tmp_path):
    full, path = swept
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    raced = sweep(PLANTED, ["cups"], documents=128, race=True, ledger=copy, dtype="float32")
    assert raced.cost.evaluations == 0  # every row it asked for was there
    race = raced.race
    assert race.full == 28 * 128
    assert race.spent == sum(e.n for e in raced.effects) + raced.documents < 0.85 * race.full
    assert raced.winner in race.survivors
    best = full.effect(full.winner).difference
    assert best - full.effect(raced.winner).difference <= 0.02
    for effect in raced.effects:
        assert (effect.dropped is None) == (effect.label in race.survivors)
        if effect.dropped is None:
            assert effect.difference == pytest.approx(
                full.effect(effect.label).difference, abs=0.15
            )


def test_a_composition_is_confirmed_on_documents_that_chose_nothing(tmp_path):
    path = tmp_path / "l.jsonl"
    result = sweep(PLANTED, ["cups"], sizes=[4], documents=64, beam=2, blocks=2, ledger=path)
    first = result.beam[0]
    assert first.label == "4:8" and first.confirmed.verdict == "improved"
    assert result.winner == "4:8"
    asked = {document for _, document in lines_of(path)}
    chosen_on = {
        document for plan, document in lines_of(path) if plan == str(grid(DEPTH, [4])[0].plan(12))
    }
    held_out = asked - chosen_on
    assert len(chosen_on) == 64 and len(held_out) >= first.confirmed.n
    composed = [e for e in result.effects if len(e.candidate.moves) == 2]
    assert composed
    for effect in composed:
        early, late = effect.candidate.moves
        assert early.block.stop <= late.block.start


def test_predictions_come_from_the_same_rows(swept):
    result, path = swept
    found = probe(PLANTED, load_prompts("task:cups", limit=20), scorers=["stability", "consensus"])
    held = sweep(
        PLANTED, ["cups"], documents=128, ledger=path, dtype="float32", against=found.rankings
    )
    rows = lines_of(path)
    documents = sorted({document for _, document in rows})
    base = np.array([rows[":", d][0] for d in documents])
    table = {
        e.block: np.array([rows[str(e.plan), d][0] for d in documents]) - base
        for e in result.effects
    }
    want = predictions(found.rankings, table)
    for one, other in zip(held.predictions, want, strict=True):
        assert (one.predicted, one.best_difference) == (other.predicted, other.best_difference)
        assert one.spearman == pytest.approx(other.spearman)


MEMORY = """
import resource, sys
from surgeon.hub import DEMO
from surgeon.sweeping.sweep import sweep
from surgeon.sweeping.work import Setting, Worker
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
budget = int(sys.argv[1]) * 2**20
sweep(DEMO / "planted", ["cups"], sizes=[4], documents=2, memory=2**20)
before = peak()
result = sweep(DEMO / "planted", ["cups"], documents=128, memory=budget)
print(before, peak(), result.cost.layer_tokens)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [16, 64])
def test_memory_stays_within_what_was_given(mebibytes):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(mebibytes)], capture_output=True, text=True, check=True
    )
    before, after, tokens = map(float, done.stdout.split())
    assert tokens > 100_000
    assert after - before <= mebibytes


def test_too_little_memory_is_said_with_what_is_needed():
    with pytest.raises(UsageError, match="needs about"):
        sweep(PLANTED, ["cups"], sizes=[4], documents=4, memory=1000)


def test_time_that_is_up_leaves_a_valid_part(tmp_path):
    path = tmp_path / "l.jsonl"
    part = sweep(PLANTED, ["cups"], documents=300, minutes=1e-9, ledger=path)
    assert part.stopped == "time" and part.documents == 64
    assert all(effect.n == 64 for effect in part.effects)
    whole = sweep(PLANTED, ["cups"], documents=128, ledger=path)
    assert whole.documents == 128 and whole.cost.evaluations == 28 * 64


def test_two_tasks_are_pooled(tmp_path):
    path = tmp_path / "l.jsonl"
    result = sweep(PLANTED, ["cups", "arithmetic"], sizes=[4], documents=40, ledger=path)
    assert result.tasks == ("cups", "arithmetic")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert {line.get("task") for line in lines if "plan" in line} == {"cups", "arithmetic"}


@pytest.mark.parametrize(
    "settings",
    [
        {"documents": 0},
        {"alpha": 1.5},
        {"margin": 0.0},
        {"beam": -1},
        {"sizes": [13]},
        {"times": [1]},
        {"tasks": ["nothing_of_that_name"], "offline": True},
        {"split": "test"},
    ],
)
def test_bad_settings_are_refused_before_the_model_is_read(monkeypatch, settings):
    monkeypatch.setattr("surgeon.sweeping.work.load_model", None)
    tasks = settings.pop("tasks", ["cups"])
    with pytest.raises(SurgeonError):
        sweep(PLANTED, tasks, **settings)


def test_a_ranking_of_another_model_is_refused():
    found = probe(PLANTED, load_prompts("task:cups", limit=5), scorers=["stability"])
    other = found.rankings[0].model_copy(update={"depth": 24})
    with pytest.raises(UsageError, match="24 layers"):
        sweep(PLANTED, ["cups"], documents=4, against=[other])

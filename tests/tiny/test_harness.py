"""Our harness against `lm_eval.evaluate` with its own model class: same prompts, same rows."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from surgeon.block import Block
from surgeon.errors import SurgeonError, UnknownName, UsageError
from surgeon.evals.backends import EngineBackend, PlainBackend
from surgeon.evals.evaltask import Protocol
from surgeon.evals.harness import build, lm_of, load_tasks, score
from surgeon.evals.quick import Measurer, measure
from surgeon.models import load_model, load_tokenizer, plan_view
from surgeon.plan import LayerPlan
from surgeon.tasks import TASKS

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "surgeon" / "demo" / "planted"
OWN = Path(__file__).parent / "tasks"
KINDS = ["t_choice", "t_likely", "t_rolling", "t_generate"]
PLANTED = LayerPlan.duplicate(12, Block(4, 8))


@pytest.fixture(scope="session")
def demo():
    return load_model(DEMO), load_tokenizer(DEMO)


def own(name, **protocol):
    return load_tasks([name], include_path=OWN, offline=True, protocol=Protocol(**protocol))[0]


def by_lm_eval(lm, task, ids):
    """lm-eval's own loop over the same documents."""
    from lm_eval import evaluate

    tasks = {"tasks": {task.name: task.task}, "groups": {}, "group_map": {}}
    out = evaluate(lm=lm, task_dict=tasks, samples={task.name: sorted(ids)}, bootstrap_iters=0)
    return [s for s in out["samples"][task.name] if s["filter"] == task.filter]


@pytest.mark.parametrize("name", ["cups", *KINDS])
def test_rows_equal_those_of_lm_eval(demo, name):
    model, tokenizer = demo
    task = own(name) if name != "cups" else load_tasks(["cups"], "select", offline=True)[0]
    # With its few-shot examples drawn from one running generator, lm-eval's prompts depend on
    # the subset, so the comparison is on prompts without examples.
    task.task.set_config("num_fewshot", 0)
    ids = [41, 3, 17, 8, 59, 30]
    rows = score(model, tokenizer, [task], {task.name: ids})
    assert [row.doc_id for row in rows] == ids
    theirs = {s["doc_id"]: s for s in by_lm_eval(lm_of(model, tokenizer, 4), task, ids)}
    for row in rows:
        want = theirs[row.doc_id]
        hashes = (want["doc_hash"], want["prompt_hash"], want["target_hash"])
        assert (row.doc_hash, row.prompt_hash, row.target_hash) == hashes
        value = want[task.metric]
        if task.output_type == "loglikelihood_rolling":
            total, units = value
            assert row.score == pytest.approx(total / units / 0.6931471805599453, abs=1e-5)
            assert row.gold_loglikelihood == pytest.approx(total, abs=1e-3)
        else:
            assert row.score == value
        if task.output_type == "multiple_choice":
            lls = [resp[0][0] for resp in want["resps"]]
            assert row.gold_loglikelihood == pytest.approx(lls[want["target"]], abs=1e-4)
            assert row.chosen == max(range(len(lls)), key=lls.__getitem__)
        if task.output_type == "generate_until":
            assert row.chosen == want["filtered_resps"][0]
            assert row.extracted == (row.chosen != "[invalid]")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("plan", [PLANTED, LayerPlan.identity(12).drop(Block(2, 4))], ids=str)
def test_plans_equal_views_run_by_lm_eval_itself(demo, name, plan):
    model, tokenizer = demo
    task = own(name)
    backend = EngineBackend(model, tokenizer)
    prompts = build(task, range(12))
    ours = backend.rows(prompts, {"base": LayerPlan.identity(12), "plan": plan})["plan"]
    twin = PlainBackend(lm_of(plan_view(model, plan), tokenizer, 4))
    theirs = twin.rows(build(task, range(12)), {"plan": plan})["plan"]
    for one, other in zip(ours, theirs, strict=True):
        assert (one.score, one.chosen) == (pytest.approx(other.score, abs=1e-5), other.chosen)
        assert one.gold_loglikelihood == pytest.approx(other.gold_loglikelihood, abs=1e-3)
        assert one.prompt_hash == other.prompt_hash
    base = backend.rows(prompts, {"base": LayerPlan.identity(12)})["base"]
    assert not (base.gold == ours.gold).all()


def test_a_prompt_does_not_depend_on_the_other_documents():
    task = own("t_choice")
    together = {p.doc_id: p for p in build(task, [9, 2, 30])}
    for doc_id, prompt in together.items():
        alone = build(task, [doc_id])[0]
        assert alone.prompt_hash == prompt.prompt_hash
        assert alone.instances[0].arguments == prompt.instances[0].arguments
    shots = {p.instances[0].arguments[0].split("Q:")[1] for p in together.values()}
    assert len(shots) > 1  # examples are drawn per document, not once for all


def test_fewshot_is_what_was_asked_for():
    counts = [
        build(own("t_choice", fewshot=n), [5])[0].instances[0].arguments[0].count("Q:")
        for n in (0, 1, 3)
    ]
    assert counts == [1, 2, 4]
    shots = load_tasks(["deduction"], "select", offline=True, protocol=Protocol(fewshot=2))[0]
    assert shots.describe()["fewshot"] == 2
    texts = {d["text"] for d in shots.docs}
    prompt = build(shots, [0])[0].instances[0].arguments[0]
    assert len(prompt) > len(shots.docs[0]["text"])
    assert sum(text in prompt for text in texts) == 1  # the examples are of another split


def test_chat_template_is_applied(demo):
    _, tokenizer = demo
    tokenizer = load_tokenizer(DEMO)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    lm = lm_of(demo[0], tokenizer)
    task = own("t_choice", chat=True, system="be brief", fewshot=1)
    text = build(task, [0], lm.apply_chat_template)[0].instances[0].arguments[0]
    assert text.startswith("<system>be brief<user>") and text.endswith("<assistant>")
    assert text.count("<assistant>") == 2


def test_primary_metric_and_filter_are_fixed_beforehand():
    assert own("t_likely").metric == "acc"
    assert own("t_rolling").metric == "bits_per_byte"
    assert own("t_generate").filter == "flexible-extract"
    assert own("t_generate", filter="strict-match").filter == "strict-match"
    assert own("t_choice", metric="acc_norm").metric == "acc_norm"
    with pytest.raises(UnknownName, match="metric of `t_choice` `f2`"):
        own("t_choice", metric="f2")
    with pytest.raises(UnknownName, match="filter of `t_choice` `no`"):
        own("t_choice", filter="no")


def test_bundled_splits_are_other_documents():
    seen = [set(load_tasks(["cups"], s, offline=True)[0].doc_hashes) for s in ("select", "confirm")]
    assert [len(s) for s in seen] == [1000, 1000] and not seen[0] & seen[1]


def test_order_is_random_seeded_and_complete():
    task = load_tasks(["cups"], offline=True)[0]
    order = task.order(0)
    assert sorted(order) == list(range(1000)) and order == task.order(0) != task.order(1)
    assert abs(sum(order[:200]) / 200 - 500) < 80


@pytest.mark.parametrize(
    ("names", "settings", "words"),
    [
        ([], {}, "no task was given"),
        (["cups", "cups"], {}, "`cups` is given twice"),
        (["cups"], {"split": "train"}, "unknown split `train`"),
        (["nothing_like_it"], {}, "unknown task `nothing_like_it`"),
        (["cups"], {"include_path": None, "protocol": Protocol(metric="f1")}, "metric of `cups`"),
        (["t_choice"], {"include_path": Path("/nowhere")}, "/nowhere` is not a folder"),
        (["t_nothing"], {"include_path": OWN}, "task `t_nothing` has no documents"),
    ],
)
def test_bad_tasks_are_refused(names, settings, words):
    with pytest.raises(SurgeonError, match=words):
        load_tasks(names, offline=True, **settings)


def test_bad_documents_are_refused(demo):
    task = own("t_likely")
    for ids, words in (([], "at least one"), ([1, 1], "distinct"), ([60], r"documents 0\.\.59")):
        with pytest.raises(UsageError, match=words):
            build(task, ids)
    with pytest.raises(UnknownName, match="unknown task `other`"):
        score(*demo, [task], {"t_likely": [0], "other": [1]})
    with pytest.raises(UsageError, match="at least one"):
        score(*demo, [task], {})


@pytest.mark.slow
def test_a_task_of_the_hub_fails_fast_offline_with_its_name():
    code = (
        "from surgeon.errors import SurgeonError\n"
        "from surgeon.evals.harness import load_tasks\n"
        "try:\n    load_tasks(['gsm8k'], offline=True)\n"
        "except SurgeonError as error:\n    print(error, '|', error.hint)\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the data of task `gsm8k` cannot be loaded" in done.stdout
    assert "use a bundled task" in done.stdout
    assert time.monotonic() - started < 20  # 10 s on a quiet machine; tests share theirs


def test_importing_the_harness_is_light():
    code = (
        "import sys, surgeon.evals.harness, surgeon.evals.grading, surgeon.evals.result\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_measure_gives_the_base_first_and_remembers(demo):
    plans = [PLANTED, LayerPlan.duplicate(12, Block(0, 4))]
    found = measure(*demo, plans, "cups", limit=60)
    assert list(found) == [LayerPlan.identity(12), *plans]
    assert found[PLANTED].mean > found[LayerPlan.identity(12)].mean + 0.1
    measurer = Measurer(*demo, "cups", documents=60)
    first = measurer.compare(plans)
    forwards = measurer.backend.engine.cost.layer_forwards
    assert measurer.compare(plans) == first
    assert measurer.backend.engine.cost.layer_forwards == forwards
    assert first[0].method.startswith("McNemar") and first[0].split == "select"
    with pytest.raises(UsageError, match="plan is for 3 layers"):
        measurer.rows([LayerPlan.identity(3)])


def test_all_bundled_tasks_run(demo):
    tasks = load_tasks(list(TASKS), "confirm", offline=True)
    rows = score(*demo, tasks, {task.name: task.order(0)[:3] for task in tasks})
    assert [row.task for row in rows] == [name for name in TASKS for _ in range(3)]

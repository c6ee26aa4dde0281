"""The check from two folders to a verdict: the planted model, and everything that must not pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved import save_plan

from surgeon.block import Block
from surgeon.errors import Refused, SurgeonError, UsageError
from surgeon.evals import backends
from surgeon.evals.check import check
from surgeon.evals.evaltask import Protocol
from surgeon.evals.identity import plan_between
from surgeon.evals.result import CheckResult
from surgeon.plan import LayerPlan
from surgeon.report.model_index import model_index

DEMO = Path(__file__).parents[2] / "surgeon" / "demo" / "planted"
CONTROL = DEMO.parent / "control"
OWN = Path(__file__).parent / "tasks"
PLAN = LayerPlan.duplicate(12, Block(4, 8))
CPU = {"device": "cpu", "dtype": "float32", "offline": True}


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    return save_plan(DEMO, PLAN, tmp_path_factory.mktemp("saved") / "planted")


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    """The base without its first half: plainly damaged."""
    plan = LayerPlan.identity(12).drop(Block(0, 6))
    return save_plan(DEMO, plan, tmp_path_factory.mktemp("saved") / "broken")


def changed(path, source, change):
    """A copy of a model folder whose tensors went through `change`."""
    shutil.copytree(source, path)
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def test_the_planted_block_is_found_improved_early(planted):
    seen = []
    result = check(DEMO, planted, ["cups"], watch=seen.append, **CPU)
    assert result.verdict.verdict == "improved" and result.stopped == "decided"
    assert result.documents < 500 and result.budget == 1000
    assert result.plan == str(PLAN) and "one copy of the weights" in result.validity.weights
    assert result.validity.control_documents and result.validity.control_flips == 0
    assert result.cost["layer_forwards"] < result.cost["layer_forwards_alone"]
    assert [v.n for v in seen] == sorted(v.n for v in seen) and seen[-1].n == result.documents
    assert all(v.verdict == "undecided" for v in seen[:-1])
    assert result.trace[-1][0] == result.documents
    assert result.meets("improved") and result.meets("not-worse")
    assert CheckResult.from_dict(json.loads(result.to_json())).to_dict() == result.to_dict()


def comparable(result):
    data = result.to_dict()
    for name in ("cost", "seconds", "plan", "validity"):
        del data[name]
    return data


def test_shared_weights_and_two_loaded_models_say_the_same(planted):
    shared = check(DEMO, planted, ["cups"], plan="fixed", limit=120, **CPU)
    apart = check(DEMO, planted, ["cups"], plan="fixed", limit=120, independent=True, **CPU)
    plain = check(DEMO, planted, ["cups"], plan="fixed", limit=120, backend="hf", **CPU)
    assert "two loaded models" in apart.validity.weights and apart.plan is None
    assert shared.verdict == apart.verdict == plain.verdict
    assert shared.flipped == apart.flipped == plain.flipped
    for other in (apart, plain):
        assert other.protocol == shared.protocol
        gold = other.tasks[0].candidate_gold
        assert gold == pytest.approx(shared.tasks[0].candidate_gold, abs=1e-5)


def test_the_base_against_itself_is_never_different():
    result = check(DEMO, DEMO, ["cups"], **CPU)
    assert result.verdict.verdict == "equivalent"
    assert result.verdict.wins == result.verdict.losses == 0 and result.plan == ":"
    assert not result.meets("improved") and result.meets("not-worse")
    short = check(DEMO, DEMO, ["cups"], limit=50, **CPU)
    assert short.verdict.verdict == "undecided" and short.stopped == "all documents"
    assert not short.meets("not-worse")


def test_damage_stops_early_and_says_so(broken):
    result = check(DEMO, broken, ["cups"], **CPU)
    assert result.stopped in ("damage", "decided") and result.documents <= 64
    assert result.damage.damaged and result.damage.drop > 1
    assert any("damaged: right answers lost" in note for note in result.notes)
    assert result.verdict.verdict != "improved" and not result.meets("not-worse")
    fixed = check(DEMO, broken, ["cups"], plan="fixed", limit=200, **CPU)
    assert fixed.verdict.verdict == "worse" and fixed.documents == 200


def test_documents_are_reproducible_and_differ_by_seed(planted, tmp_path):
    runs = [
        check(DEMO, planted, ["cups"], limit=40, seed=s, rows_to=tmp_path / f"{at}", **CPU)
        for at, s in enumerate((0, 0, 1))
    ]
    assert comparable(runs[0]) == comparable(runs[1])
    assert runs[0].protocol["documents_sha256"] != runs[2].protocol["documents_sha256"]
    texts = [(tmp_path / str(at)).read_text() for at in range(3)]
    assert texts[0] == texts[1] != texts[2]
    rows = [json.loads(line) for line in texts[0].splitlines()]
    assert len(rows) == runs[0].documents
    mean = sum(row["candidate"]["score"] for row in rows) / len(rows)
    assert mean == pytest.approx(runs[0].verdict.candidate)


def test_the_protocol_hash_is_of_the_question_not_of_the_answer(planted):
    one = check(DEMO, planted, ["cups"], limit=40, **CPU)
    same = check(DEMO, DEMO, ["cups"], limit=60, **CPU)
    other = check(DEMO, planted, ["cups"], limit=40, split="select", **CPU)
    assert one.protocol_sha256 == same.protocol_sha256 != other.protocol_sha256


def test_several_tasks_are_weighted_and_none_may_get_worse(planted):
    result = check(DEMO, planted, ["cups", "navigation"], limit=300, **CPU)
    assert [each.task for each in result.tasks] == ["cups", "navigation"]
    assert result.weights == {"cups": 0.5, "navigation": 0.5}
    assert sum(each.verdict.n for each in result.tasks) == result.verdict.n == result.documents
    assert result.tasks[0].verdict.level == pytest.approx(0.975)
    heavy = check(
        DEMO, planted, ["cups", "navigation"], weights={"cups": 9.0, "navigation": 1.0},
        limit=100, plan="fixed", **CPU,
    )  # fmt: skip
    assert heavy.tasks[0].verdict.n > 75
    with pytest.raises(UsageError, match="weights are for"):
        check(DEMO, planted, ["cups"], weights={"deduction": 1.0}, **CPU)


@pytest.mark.parametrize("name", ["t_choice", "t_likely", "t_rolling", "t_generate"])
def test_every_kind_of_task_ends_in_a_verdict(planted, name):
    result = check(DEMO, planted, [name], include_path=OWN, limit=40, **CPU)
    assert result.documents <= 40 and result.verdict.n == result.documents
    assert result.tasks[0].task == name
    shares = (result.tasks[0].base_extraction_failure, result.tasks[0].candidate_extraction_failure)
    assert all(0 <= share <= 1 for share in shares)


def test_a_change_of_format_is_called_that(planted, monkeypatch):
    real, calls = backends.generate, []

    def muted(lm, instances):
        calls.append(lm)
        answers = real(lm, instances)
        silent = len(lm.model.model.layers) == len(PLAN)
        return dict.fromkeys(answers, "...") if silent else answers

    monkeypatch.setattr(backends, "generate", muted)
    settings = {"include_path": OWN, "limit": 40, "plan": "fixed", **CPU}
    result = check(DEMO, planted, ["t_generate"], **settings)
    task = result.tasks[0]
    assert task.candidate_extraction_failure == 1.0 > task.base_extraction_failure
    assert task.format_changed
    assert any("format, not ability" in note for note in result.notes)


def test_candidates_tried_before_are_part_of_the_correction(planted, broken, tmp_path):
    ledger = tmp_path / "tried.jsonl"
    first = check(DEMO, planted, ["cups"], limit=40, ledger=ledger, **CPU)
    again = check(DEMO, planted, ["cups"], limit=40, ledger=ledger, **CPU)
    second = check(DEMO, broken, ["cups"], limit=40, ledger=ledger, **CPU)
    counts = [each.candidates_tried for each in (first, again, second)]
    assert counts == [1, 1, 2] and second.verdict.level == pytest.approx(0.975)
    ledger.write_text("not json\n")
    with pytest.raises(SurgeonError, match="cannot be read"):
        check(DEMO, planted, ["cups"], limit=40, ledger=ledger, **CPU)


def test_duplicate_documents_are_refused_or_dropped(planted):
    settings = {"include_path": OWN, **CPU}
    with pytest.raises(SurgeonError, match="`t_twice` has 1 duplicate documents among 61"):
        check(DEMO, planted, ["t_twice"], **settings)
    result = check(DEMO, planted, ["t_twice"], duplicates="drop", plan="fixed", **settings)
    assert result.documents == 60 and result.validity.duplicates_dropped == 1


def test_weights_that_are_not_numbers_give_no_number(tmp_path):
    def poison(tensors):
        tensors["model.layers.3.mlp.up_proj.weight"][0, 0] = float("nan")

    candidate = changed(tmp_path / "nan", DEMO, poison)
    for backend in ("engine", "hf"):
        with pytest.raises(SurgeonError, match="log-likelihoods of `candidate` are not finite"):
            check(DEMO, candidate, ["cups"], limit=20, backend=backend, **CPU)


def test_another_tokenizer_or_vocabulary_is_refused(tmp_path, planted):
    swapped = shutil.copytree(planted, tmp_path / "swapped")
    text = json.loads((swapped / "tokenizer.json").read_text())
    names = sorted(text["model"]["vocab"], key=text["model"]["vocab"].get)
    text["model"]["vocab"][names[-1]], text["model"]["vocab"][names[-2]] = (
        text["model"]["vocab"][names[-2]], text["model"]["vocab"][names[-1]],
    )  # fmt: skip
    (swapped / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(SurgeonError, match="another tokenizer: 291 and 291 tokens, 2 of them"):
        check(DEMO, swapped, ["cups"], **CPU)
    wider = changed(
        tmp_path / "wider", planted,
        lambda t: t.update({"model.embed_tokens.weight": torch.zeros(300, 128)}),
    )  # fmt: skip
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(SurgeonError, match="another vocabulary: 291 and 300 rows"):
        check(DEMO, wider, ["cups"], **CPU)


def test_chat_templates_that_differ_show_in_the_hashes(planted, tmp_path):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    folders = [shutil.copytree(each, tmp_path / n) for n, each in (("a", DEMO), ("b", planted))]
    (folders[0] / "chat_template.jinja").write_text(template)
    (folders[1] / "chat_template.jinja").write_text(template + "!")
    settings = {"limit": 20, "plan": "fixed", **CPU}
    plain = check(*folders, ["cups"], **settings)
    assert "the chat templates differ" in plain.validity.weights
    with pytest.raises(SurgeonError, match="prompt_hash differs between the runs"):
        check(*folders, ["cups"], protocol=Protocol(chat=True), **settings)
    (folders[1] / "chat_template.jinja").write_text(template)
    same = check(*folders, ["cups"], protocol=Protocol(chat=True), **settings)
    assert same.protocol["chat_template_sha256"] and "one copy" in same.validity.weights


def test_a_plan_is_proven_by_bytes_not_by_the_manifest(planted, tmp_path):
    assert plan_between(DEMO, planted)[0] == PLAN
    assert plan_between(DEMO, DEMO)[0] == LayerPlan.identity(12)

    def nudge(tensors):
        tensors["model.layers.9.mlp.up_proj.weight"][0, 0] += 1

    forged = changed(tmp_path / "forged", planted, nudge)
    plan, reason = plan_between(DEMO, forged)
    assert plan is None and "does not hold the bytes of `model.layers.5.mlp.up_proj" in reason
    bare = save_plan(DEMO, PLAN, tmp_path / "bare", manifest=False)
    plan, reason = plan_between(DEMO, bare)
    assert plan is None and "has 16 layers, the base 12; it has no manifest" in reason
    other = shutil.copytree(planted, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert plan_between(DEMO, other) == (None, "the configs differ in `rms_norm_eps`")
    result = check(DEMO, bare, ["cups"], limit=60, **CPU)
    assert "two loaded models" in result.validity.weights


def test_settings_that_cannot_be_are_refused(planted, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(SurgeonError, match="vllm is not installed"):
        check(DEMO, planted, ["cups"], backend="vllm", **CPU)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="leaves no document"):
        check(DEMO, planted, ["cups"], limit=0, **CPU)
    with pytest.raises(UsageError, match="cannot be pooled"):
        check(DEMO, planted, ["t_rolling", "t_likely"], include_path=OWN, **CPU)


def test_no_task_lost_the_margin_is_one_claim(planted):
    result = check(DEMO, DEMO, ["cups", "navigation"], require="not-worse", margin=0.1, **CPU)
    assert result.meets("not-worse") and result.stopped == "decided"
    for each in result.tasks:
        assert each.not_worse
        # The corrected interval of the verdict is wider than the one of the bound.
        assert each.verdict.level == pytest.approx(0.975)


def test_a_device_map_runs_through_the_engine_and_generates_apart(planted):
    settings = {"device_map": "auto", "limit": 40, "plan": "fixed", **CPU}
    mapped = check(DEMO, planted, ["cups"], **settings)
    assert mapped.verdict == check(DEMO, planted, ["cups"], limit=40, plan="fixed", **CPU).verdict
    written = check(DEMO, planted, ["t_generate"], include_path=OWN, **settings)
    assert "generation with a device map" in written.validity.weights


def test_the_model_index_is_what_the_hub_reads(planted):
    from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results

    result = check(DEMO, planted, ["cups", "arithmetic"], limit=50, plan="fixed", **CPU)
    entries = model_index(result, "planted-6x")
    name, read = model_index_to_eval_results(entries)
    assert name == "planted-6x" and [each.dataset_name for each in read] == ["cups", "arithmetic"]
    assert read[0].metric_value == round(result.tasks[0].verdict.candidate, 4)
    assert read[0].metric_args["documents"] == result.tasks[0].verdict.n
    ModelCardData(model_name=name, eval_results=read).to_yaml()


@pytest.mark.slow
def test_the_control_is_never_improved(tmp_path):
    candidate = save_plan(CONTROL, PLAN, tmp_path / "control")
    found = [check(CONTROL, candidate, ["cups"], seed=seed, **CPU) for seed in range(20)]
    assert all(result.verdict.verdict != "improved" for result in found)


def test_tasks_that_would_run_code_are_refused(planted, tmp_path):
    text = (OWN / "generate.yaml").read_text().replace("t_generate", "t_unsafe")
    (tmp_path / "unsafe.yaml").write_text(text + "unsafe_code: true\n")
    shutil.copy(OWN / "data.py", tmp_path / "data.py")
    with pytest.raises(Refused, match="`t_unsafe` runs code"):
        check(DEMO, planted, ["t_unsafe"], include_path=tmp_path, **CPU)


def test_time_runs_out(planted):
    result = check(DEMO, DEMO, ["cups"], minutes=0.0, **CPU)
    assert result.stopped == "time" and result.verdict.verdict == "undecided"


def test_obrien_fleming_looks_five_times(planted):
    seen = []
    check(DEMO, DEMO, ["cups"], plan="obf", limit=100, margin=1e-9, watch=seen.append, **CPU)
    assert [verdict.n for verdict in seen] == [20, 40, 60, 80, 100]

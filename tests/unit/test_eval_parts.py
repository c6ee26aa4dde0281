"""Trie, row layout, document stream, row pairing, damage: the parts that need no torch."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.block import Block, all_blocks
from surgeon.errors import SurgeonError
from surgeon.evals.damage import MOST, DamageDetector
from surgeon.evals.layout import Request, batches, packed_rows, plain_rows
from surgeon.evals.result import CheckResult
from surgeon.evals.rows import (
    Row,
    Rows,
    extraction_failure,
    require_deterministic,
    require_distinct,
    require_pairs,
)
from surgeon.evals.stream import chunks, draw
from surgeon.evals.trie import LayerTrie
from surgeon.plan import LayerPlan

plans = st.integers(1, 6).flatmap(
    lambda depth: st.lists(
        st.lists(st.integers(0, depth - 1), min_size=1, max_size=8).map(
            lambda layers: LayerPlan(depth, tuple(layers))
        ),
        min_size=1,
        max_size=6,
    )
)


@given(plans)
def test_the_trie_runs_every_plan_and_every_shared_prefix_once(some):
    named = dict(enumerate(some))
    trie = LayerTrie(named)
    steps, arrived = [], {}

    def step(layer, state):
        steps.append((*state, layer))
        return (*state, layer)

    trie.walk((), step, lambda name, state: arrived.__setitem__(name, state))
    assert arrived == {name: plan.layers for name, plan in named.items()}
    prefixes = {p.layers[:n] for p in some for n in range(1, len(p) + 1)}
    assert len(steps) == len(set(steps)) == trie.nodes == len(prefixes)
    assert trie.naive == sum(len(plan) for plan in some)


@pytest.mark.parametrize(
    ("depth", "sizes", "nodes", "naive"),
    # Arithmetic: the base once, and for each block its repeat and the tail behind it.
    [(32, range(1, 33), 11472 + 32 - 32, None), (12, (3, 4, 5), None, None)],
)
def test_trie_counts_of_all_blocks(depth, sizes, nodes, naive):
    blocks = [b for b in all_blocks(depth, sizes) if b != Block(0, depth)] if nodes else (
        all_blocks(depth, sizes)
    )  # fmt: skip
    some = {b: LayerPlan.duplicate(depth, b) for b in blocks} | {None: LayerPlan.identity(depth)}
    trie = LayerTrie(some)
    want = depth + sum(depth - b.start for b in blocks)
    assert trie.nodes == want
    assert trie.naive == depth + sum(depth + len(b) for b in blocks)


def test_a_sweep_keeps_few_states_alive():
    some = {b: LayerPlan.duplicate(32, b) for b in all_blocks(32, range(1, 32))}
    trie = LayerTrie(some)
    most = trie.walk(object(), lambda layer, state: object(), lambda name, state: None)
    assert most <= 3


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
requests = st.lists(st.builds(Request, tokens, tokens), min_size=1, max_size=8, unique=True)


@given(requests, st.booleans(), st.integers(4, 12))
def test_rows_hold_what_each_request_must_see(some, pack, longest):
    rows = packed_rows(some, longest, longest) if pack else plain_rows(some, longest)
    assert sorted(map(repr, some)) == sorted(repr(r) for row in rows for r in row.reads)
    for row in rows:
        assert len(row.tokens) <= longest
        for request, places in row.reads.items():
            assert len(places) == len(request.continuation)
            branch = next((b for b in row.branches if b[0] in places[1:2]), None)
            whole = (request.context + request.continuation)[:-1]
            if row.branches and branch:
                seen = row.tokens[: row.trunk] + row.tokens[branch[0] : places[-1] + 1]
            else:
                seen = row.tokens[: places[-1] + 1]
            assert tuple(seen) == whole[-longest:]


@given(requests, st.integers(1, 3), st.integers(4, 20))
def test_batches_hold_every_row_once_within_budget(some, most_rows, most_tokens):
    rows = packed_rows(some, 50, 50)
    found = list(batches(rows, most_rows, most_tokens))
    assert sorted(id(r) for batch in found for r in batch) == sorted(map(id, rows))
    for batch in found:
        assert len(batch) <= most_rows
        assert len(batch) == 1 or len(batch) * len(batch[0].tokens) <= most_tokens
        assert len({bool(row.branches) for row in batch}) == 1
        assert all(len(row.tokens) <= len(batch[0].tokens) for row in batch)


@dataclass
class FakeTask:
    name: str
    size: int

    def order(self, seed):
        return [int(x) for x in np.random.default_rng(seed).permutation(self.size)]


def test_the_stream_follows_the_weights_and_leaves_out_what_it_must():
    tasks = [FakeTask("a", 3000), FakeTask("b", 3000)]
    drawn = draw(tasks, {"a": 3.0, "b": 1.0}, 0, {"a": frozenset(range(100))})
    share = sum(each.task == "a" for each in drawn) / len(drawn)
    assert share == pytest.approx(0.75, abs=0.03)
    assert len(set(drawn)) == len(drawn)
    assert not any(each.task == "a" and each.doc_id < 100 for each in drawn)
    assert [d.doc_id for d in drawn if d.task == "b"] == tasks[1].order(0)[: len(drawn) - 2900]
    assert drawn == draw(tasks, {"a": 3.0, "b": 1.0}, 0, {"a": frozenset(range(100))})
    assert drawn != draw(tasks, {"a": 3.0, "b": 1.0}, 1)


def test_one_task_is_drawn_to_its_end():
    assert len(draw([FakeTask("a", 77)], {"a": 1.0}, 0)) == 77


@given(st.integers(1, 3000), st.lists(st.integers(1, 3000), max_size=3))
def test_chunks_are_the_stream(n, ends):
    stream = list(range(n))
    parts = list(chunks(stream, sorted(ends)))
    assert [x for part in parts for x in part] == stream
    if ends:
        stops = set(np.cumsum([len(part) for part in parts]).tolist())
        assert stops <= {*ends, n}


def row(doc_id, score=1.0, chosen=0, **changes):
    fields = {
        "task": "t", "doc_id": doc_id, "doc_hash": f"d{doc_id}", "prompt_hash": "p",
        "target_hash": "t", "score": score, "chosen": chosen, "gold_loglikelihood": -1.0,
    }  # fmt: skip
    return Row(**{**fields, **changes})


def test_pairs_must_be_pairs():
    left = Rows((row(0), row(1)))
    require_pairs(left, Rows((row(0, score=0.0), row(1))))
    for other, words in [
        (Rows((row(0), row(2))), "2 are in one run only"),
        (Rows((row(1), row(0))), "their order differs"),
        (Rows((row(0), row(1, doc_hash="x"))), "document 1: doc_hash differs"),
        (Rows((row(0), row(1, prompt_hash="x"))), "document 1: prompt_hash differs"),
        (Rows((row(0), row(1, target_hash="x"))), "document 1: target_hash differs"),
    ]:
        with pytest.raises(SurgeonError, match=words):
            require_pairs(left, other)
    with pytest.raises(SurgeonError, match="no documents"):
        require_pairs(Rows(), Rows())


@pytest.mark.parametrize("field", ["score", "gold_loglikelihood"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_row_is_never_without_a_number(field, value):
    with pytest.raises(SurgeonError, match=f"document 3: {field} is {value}"):
        row(3, **{field: value})


def test_the_control_counts_flips():
    left = Rows((row(0), row(1)))
    assert require_deterministic(left, Rows((row(0), row(1)))) == 2
    with pytest.raises(SurgeonError, match="1 of 2 answers of the base flipped"):
        require_deterministic(left, Rows((row(0), row(1, chosen=3))))


def test_duplicate_documents_are_named():
    require_distinct("t", ["a", "b", "c"])
    with pytest.raises(SurgeonError, match="2 duplicate documents among 5, for example 0 and 2"):
        require_distinct("t", ["a", "b", "a", "a", "c"])


def test_the_fingerprint_is_of_documents_not_of_answers():
    left, right = Rows((row(0), row(1))), Rows((row(0, score=0.0), row(1, chosen=9)))
    assert left.fingerprint() == right.fingerprint() != Rows((row(1), row(0))).fingerprint()
    assert left.fingerprint() != Rows((row(0), row(1, prompt_hash="x"))).fingerprint()


def test_extraction_failure_is_a_share():
    assert extraction_failure([row(0), row(1, extracted=False)]) == 0.5


def feed(detector, falls, tokens=2):
    left = [row(at, gold_loglikelihood=-1.0, gold_tokens=tokens) for at in range(len(falls))]
    right = [
        row(at, gold_loglikelihood=-1.0 - fall * tokens, gold_tokens=tokens)
        for at, fall in enumerate(falls)
    ]
    detector.add(left, right)
    return detector.result()


def test_damage_needs_a_large_fall_on_enough_documents():
    assert feed(DamageDetector(), [3.0] * 30).damaged
    assert not feed(DamageDetector(), [3.0] * 9).damaged
    assert not feed(DamageDetector(), [0.5] * 30).damaged
    assert not feed(DamageDetector(), [-3.0] * 30).damaged
    broken = feed(DamageDetector(), [100.0] * 40)
    assert broken.n == MOST and broken.drop == 4.0


def test_damage_is_rare_at_its_limit():
    generator = np.random.default_rng(0)
    falls = generator.normal(1.0, 1.0, (60, 30))
    assert np.mean([feed(DamageDetector(), run).damaged for run in falls]) <= 0.02


def test_the_schema_of_a_check_is_closed():
    schema = CheckResult.json_schema()
    assert schema["properties"]["schema"]["const"] == "surgeon.check/1"
    assert schema["additionalProperties"] is False

"""Every type that crosses a stage boundary reads back from its JSON as it was."""

import json
import math

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.block import Block
from surgeon.checkpoint.manifest import Edit, File, Manifest, Source
from surgeon.cost.result import Cost, ModelCost, Spread
from surgeon.errors import UsageError
from surgeon.paired import Verdict
from surgeon.plan import LayerPlan
from surgeon.recipe import CheckStep, CostStep, ProbeStep, Recipe, SelectStep
from surgeon.record import Record
from surgeon.score.base import BlockScore, Ranking, Unranked
from surgeon.stats import LayerStats

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
measured = finite | st.just(math.nan)
words = st.text(max_size=8)
counts = st.integers(0, 10**6)
blocks = st.builds(lambda start, size: Block(start, start + size), counts, st.integers(1, 9)).map(
    lambda block: Block(block.start % 99, block.start % 99 + len(block))
)
plans = st.integers(1, 20).flatmap(
    lambda depth: st.lists(st.integers(0, depth - 1), min_size=1, max_size=30).map(
        lambda layers: LayerPlan(depth, tuple(layers))
    )
)
sources = st.builds(
    Source, id=words, revision=st.none() | words,
    files=st.dictionaries(words, st.fixed_dictionaries({"size": counts}), max_size=2),
)  # fmt: skip
spreads = st.lists(finite, min_size=1, max_size=4).map(Spread.of)
costs = st.builds(
    ModelCost, prefill=spreads, decode=spreads, weights=counts, peak=counts, idle=counts
)

TYPES = {
    Block: blocks,
    LayerPlan: plans,
    LayerStats: st.integers(1, 6).flatmap(
        lambda depth: st.builds(
            LayerStats, depth=st.just(depth), prompts=counts, tokens=counts,
            values=st.dictionaries(words, st.tuples(*[measured] * depth), max_size=3),
            missing=st.dictionaries(words, words, max_size=2),
        )
    ),
    Ranking: st.builds(
        Ranking, scorer=words, circuit=words, depth=counts, compat=st.none() | words,
        entries=st.lists(
            st.builds(BlockScore, block=blocks, score=finite, depth_share=finite,
                      terms=st.dictionaries(words, finite, max_size=3)), max_size=3,
        ).map(tuple),
        unranked=st.lists(st.builds(Unranked, block=blocks, reason=words), max_size=2).map(tuple),
    ),
    Verdict: st.builds(
        Verdict, verdict=st.sampled_from(["improved", "worse", "equivalent", "undecided"]),
        n=counts, base=measured, candidate=measured, difference=measured,
        interval=st.tuples(measured, measured), level=finite, method=words, p=measured,
        e=measured, wins=counts, losses=counts, ties=counts, margin=finite,
        split=st.none() | words, task=st.none() | words, docs_needed=st.none() | counts,
    ),
    Manifest: st.builds(
        Manifest, source=sources, plan=plans, root=st.none() | sources, root_plan=st.none() | plans,
        edits=st.lists(st.builds(Edit, key=words, before=counts, after=counts), max_size=2),
        files=st.lists(
            st.builds(File, name=words, size=counts, digest=st.none() | words), max_size=2
        ),
        tensors=st.dictionaries(words, words, max_size=2), carried=st.lists(words, max_size=2),
        left=st.lists(words, max_size=2), checks=st.lists(words, max_size=2), rebuild=words,
        versions=st.dictionaries(words, words, max_size=2),
    ),
    Recipe: st.builds(
        Recipe, name=words, model=words, seed=counts,
        probe=st.builds(ProbeStep, prompts=words, limit=st.integers(1, 99)),
        select=st.builds(
            SelectStep, task=words, budget=st.integers(1, 99),
            candidates=st.just("top1") | st.dictionaries(words, counts, max_size=3),
        ),
        check=st.builds(CheckStep, documents=st.integers(1, 999),
                        plan=st.sampled_from(["fixed", "sequential"])),
        cost=st.builds(CostStep, enabled=st.booleans(), tokens=st.integers(2, 99)),
    ),
    Cost: st.builds(
        Cost, base=st.none() | costs, candidate=st.none() | costs,
        prefill_ratio=st.none() | spreads, decode_ratio=st.none() | spreads, batch=counts,
        prompt=counts, tokens=counts, warm=st.booleans(), dtype=words, device=words,
        machine=words, threads=counts, others=measured, memory=words, missing=st.none() | words,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reads_back_as_it_was(kind, data):
    value = data.draw(TYPES[kind])
    text = json.dumps(value.to_dict(), allow_nan=False)
    back = kind.from_dict(json.loads(text))
    assert repr(back) == repr(value)  # NaN differs from itself; its text does not
    assert back.to_dict() == value.to_dict()
    if issubclass(kind, Record):
        jsonschema.validate(value.to_dict(), kind.json_schema())


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_is_frozen_and_refuses_another_tag(kind, data):
    value = data.draw(TYPES[kind])
    with pytest.raises((AttributeError, ValueError)):
        value.depth = 3
    for wrong in ({**value.to_dict(), "schema": "surgeon.other/1"}, {}, [], None):
        with pytest.raises(UsageError):
            kind.from_dict(wrong)

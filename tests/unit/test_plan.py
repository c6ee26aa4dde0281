"""Blocks and layer plans: notation, laws, and refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.block import Block, all_blocks
from surgeon.errors import UsageError
from surgeon.plan import LayerPlan, repeat_blocks


@st.composite
def blocks(draw, depth=None):
    depth = depth or draw(st.integers(1, 40))
    start = draw(st.integers(0, depth - 1))
    return Block(start, draw(st.integers(start + 1, depth)))


@st.composite
def plans(draw, depth=None):
    depth = depth or draw(st.integers(1, 30))
    layers = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=40))
    return LayerPlan(depth, tuple(layers))


@given(blocks())
def test_block_text_round_trip(block):
    assert Block.parse(str(block)) == block
    assert len(block) == len(list(block.layers)) == block.stop - block.start


@pytest.mark.parametrize("text", ["", "6", "6-11", "11:6", "6:6", "-1:3", "a:b", "6:11:1", "٣:٤x"])
def test_bad_block_is_refused_with_its_text(text):
    with pytest.raises(UsageError, match="block"):
        Block.parse(text)


def test_block_out_of_range_names_the_depth():
    with pytest.raises(UsageError, match="has 12 layers"):
        Block(6, 13).within(12)


def test_neighbours_are_one_layer_away_and_inside():
    assert set(Block(4, 8).neighbours(12)) == {
        Block(3, 7), Block(5, 9), Block(3, 8), Block(5, 8), Block(4, 7), Block(4, 9),
    }  # fmt: skip
    assert Block(0, 1).neighbours(1) == []
    for near in Block(0, 3).neighbours(4):
        assert near.distance(Block(0, 3)) == 1
        assert near.within(4)


def test_all_blocks_counts():
    assert len(all_blocks(12, [3, 4, 5])) == 10 + 9 + 8
    assert all_blocks(2, [3]) == []


@given(plans())
def test_plan_text_round_trip(plan):
    assert LayerPlan.parse(str(plan), plan.depth) == plan


@given(st.data())
def test_identity_is_neutral(data):
    plan = data.draw(plans())
    assert LayerPlan.identity(plan.depth).then(plan) == plan
    assert plan.then(LayerPlan.identity(len(plan))) == plan


@given(st.data())
def test_then_is_associative(data):
    a = data.draw(plans())
    b = data.draw(plans(depth=len(a)))
    c = data.draw(plans(depth=len(b)))
    assert a.then(b).then(c) == a.then(b.then(c))


@given(st.data(), st.integers(1, 4))
def test_repeat_length_and_content(data, times):
    plan = data.draw(plans())
    block = data.draw(blocks(depth=len(plan)))
    repeated = plan.repeat(block, times)
    assert len(repeated) == len(plan) + (times - 1) * len(block)
    assert repeated.layers == (
        plan.layers[: block.start]
        + plan.layers[block.start : block.stop] * times
        + plan.layers[block.stop :]
    )


@given(st.data())
def test_drop_undoes_repeat(data):
    plan = data.draw(plans())
    block = data.draw(blocks(depth=len(plan)))
    assert plan.repeat(block).drop(block) == plan


def test_notation_reads_as_what_runs():
    plan = LayerPlan.duplicate(12, Block(6, 11))
    assert str(plan) == ":11,6:"
    assert plan.layers == (*range(11), *range(6, 12))
    assert plan.positions(7) == [7, 12]
    assert LayerPlan.parse("0, 1, 1, 2:", 4).layers == (0, 1, 1, 2, 3)


def test_several_blocks_equal_repeats_written_by_hand():
    plan = repeat_blocks(10, [Block(6, 8), Block(1, 3)], times=3)
    assert plan.layers == (0, 1, 2, 1, 2, 1, 2, 3, 4, 5, 6, 7, 6, 7, 6, 7, 8, 9)
    with pytest.raises(UsageError, match="overlap"):
        repeat_blocks(10, [Block(1, 4), Block(3, 5)])


@pytest.mark.parametrize("text", ["", ":,", "x:", "5:3", "9:13", "13", "3:3", "1:2:3"])
def test_bad_plan_is_refused(text):
    with pytest.raises(UsageError):
        if text == ":,":
            LayerPlan.parse(":,,", 12)
        else:
            LayerPlan.parse(text, 12)


def test_plans_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="5 layers"):
        LayerPlan.identity(4).then(LayerPlan.identity(5))
    with pytest.raises(UsageError, match="over 4096"):
        LayerPlan(1, (0,) * 4097)
    with pytest.raises(UsageError, match="at least 1"):
        LayerPlan.identity(4).repeat(Block(1, 2), 0)
    with pytest.raises(UsageError, match="entries"):
        LayerPlan.identity(4).apply([1, 2, 3])


def test_apply_permutes_a_per_layer_list():
    assert LayerPlan.duplicate(4, Block(1, 3)).apply(list("abcd")) == list("abcbcd")

"""What a sweep tries, written by hand."""

import pytest

from surgeon.block import Block, all_blocks
from surgeon.errors import UsageError
from surgeon.plan import LayerPlan
from surgeon.sweeping.moves import Candidate, Repeat, grid
from surgeon.sweeping.preview import plan_sweep


def repeat(text, times=2, each=False):
    return Repeat(block=Block.parse(text), times=times, each=each)


@pytest.mark.parametrize(
    ("moves", "layers", "label", "added"),
    [
        ([], (0, 1, 2, 3, 4, 5), "base", 0),
        ([repeat("1:3")], (0, 1, 2, 1, 2, 3, 4, 5), "1:3", 2),
        ([repeat("1:3", 3)], (0, 1, 2, 1, 2, 1, 2, 3, 4, 5), "1:3 x3", 4),
        ([repeat("1:3", each=True)], (0, 1, 1, 2, 2, 3, 4, 5), "1:3 each", 2),
        ([repeat("1:3", 3, True)], (0, 1, 1, 1, 2, 2, 2, 3, 4, 5), "1:3 each x3", 4),
        (
            [repeat("0:2"), repeat("4:6")],
            (0, 1, 0, 1, 2, 3, 4, 5, 4, 5),
            "0:2 + 4:6",
            4,
        ),
        ([repeat("4:5", each=True), repeat("1:2", 3)], None, None, 3),
    ],
)
def test_plans_and_labels_by_hand(moves, layers, label, added):
    candidate = Candidate(moves=tuple(moves))
    plan = candidate.plan(6)
    assert candidate.added == len(plan) - 6 == added
    if layers:
        assert plan.layers == layers
        assert str(candidate) == label


def test_moves_join_in_order_and_know_their_overlaps():
    late = Candidate(moves=(repeat("4:6"),))
    both = late.with_move(repeat("1:3"))
    assert str(both) == "1:3 + 4:6"
    assert both.overlaps(repeat("2:4")) and not both.overlaps(repeat("3:4"))
    assert both.block is None
    assert late.block == Block(4, 6)
    assert Candidate(moves=(repeat("4:6", 3),)).block is None


def test_the_grid_holds_every_block_once():
    found = grid(12, [3, 4, 5])
    assert [c.block for c in found] == all_blocks(12, [3, 4, 5])
    assert len({c.plan(12) for c in found}) == len(found) == 27
    assert len(grid(6, None)) == 21


def test_repeats_in_place_are_not_listed_twice():
    found = grid(5, [1, 2], times=[1, 2, 3], each=True)
    plans = [candidate.plan(5) for candidate in found]
    assert len(set(plans)) == len(plans) == 2 * (5 + 4) + 2 * 4
    assert LayerPlan.identity(5) not in plans


@pytest.mark.parametrize(
    ("sizes", "times"), [([13], [2]), ([3], [1]), ([3], [0, 2]), ([], [2]), ([3], [])]
)
def test_nothing_to_measure_is_said(sizes, times):
    with pytest.raises(UsageError):
        grid(12, sizes, times)


def test_too_many_candidates_are_refused_before_anything_is_loaded():
    with pytest.raises(UsageError, match="at most"):
        grid(100, None)


def test_the_preview_counts_what_a_walk_runs():
    """The base is 12 layers; after a block, everything from its start runs again."""
    again = sum(12 - block.start for block in all_blocks(12, [3, 4, 5]))
    alone = sum(12 + len(block) for block in all_blocks(12, [3, 4, 5]))
    plan = plan_sweep(12, (3, 4, 5), (2,), False, 500)
    assert plan.layer_forwards == 12 + again
    assert plan.layer_forwards_alone == 12 + alone
    assert (plan.candidates, plan.evaluations) == (27, 28 * 500)

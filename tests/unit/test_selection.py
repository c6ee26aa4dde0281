"""Selection: proposals, refinement within a budget, and results that name a plan."""

import pytest

from surgeon.block import Block
from surgeon.errors import UsageError
from surgeon.paired import compare
from surgeon.plan import LayerPlan
from surgeon.score.base import BlockScore, Ranking
from surgeon.selection import Proposal, Selection, plan_from, propose, select, take_first

DEPTH = 12


def ranking(scorer, *blocks):
    entries = tuple(
        BlockScore(block=Block.parse(text), score=-place, terms={}, depth_share=0.5)
        for place, text in enumerate(blocks)
    )
    return Ranking(scorer=scorer, circuit="any", depth=DEPTH, entries=entries)


def landscape(gain):
    """A measurer whose block gains `gain(block)` of 100 documents, and what it was asked."""
    asked = []

    def measure(blocks):
        asked.extend(blocks)
        verdicts = {}
        for block in blocks:
            won = gain(block)
            base = [0.0] * 50 + [1.0] * 50
            candidate = (
                [1.0] * won + [0.0] * (50 - won) + [1.0] * 50
                if won >= 0
                else ([0.0] * 50 + [0.0] * -won + [1.0] * (50 + won))
            )
            verdicts[block] = compare(base, candidate, plan="fixed")
        return verdicts

    return measure, asked


def run(gain, start, **changes):
    measure, asked = landscape(gain)
    settings = {"task": "t", "depth": DEPTH, "refine": True, "budget": 24, "min_gain": 0.02}
    proposals = [Proposal(block=Block.parse(text), origin="here") for text in start]
    return select(proposals, measure, **{**settings, **changes}), asked


def hill(block):
    return 40 - 5 * block.distance(Block(4, 8))


def test_proposals_are_merged_and_name_everyone_who_made_them():
    made = propose(
        [ranking("stability", "1:4", "2:5"), ranking("anomaly", "1:4", "9:12")],
        {"stability": 2, "anomaly": 2},
    )
    assert [(str(p.block), p.origin) for p in made] == [
        ("1:4", "stability #1, anomaly #1"), ("2:5", "stability #2"), ("9:12", "anomaly #2"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="`consensus`, which the probe did not run"):
        propose([ranking("stability", "1:4")], {"consensus": 1})


def test_refinement_climbs_to_the_top_and_measures_no_block_twice():
    selection, asked = run(hill, ["1:5", "9:12"])
    assert selection.winner == Block(4, 8)
    assert len(asked) == len(set(asked)) == len(selection.tried)
    assert selection.origin.startswith(("shift of", "resize of"))


def test_refinement_stays_where_nothing_is_gained():
    selection, asked = run(lambda block: 10, ["4:8"])
    assert len(asked) == 1 + 6
    assert selection.winner is not None and selection.verdict.difference == pytest.approx(0.1)


def test_the_budget_is_kept():
    _, asked = run(hill, ["1:5", "9:12", "2:4"], budget=2)
    assert [str(block) for block in asked] == ["1:5", "9:12"]
    assert len(run(hill, ["1:5"], budget=4)[1]) == 4


def test_without_refinement_only_the_proposals_are_measured():
    _, asked = run(hill, ["1:5", "9:12"], refine=False)
    assert len(asked) == 2


@pytest.mark.parametrize("gain", [0, -20, 1])
def test_no_winner_when_the_gain_is_too_small(gain):
    selection, _ = run(lambda block: gain, ["1:5"])
    assert selection.winner is None and selection.origin is None
    assert selection.best is not None and selection.verdict.difference == gain / 100
    assert "none of 7 measured blocks gained 0.020" in selection.reason


def test_of_equal_gains_the_smallest_block_wins():
    selection, _ = run(lambda block: 10, ["3:8", "4:8"], refine=False)
    assert selection.winner == Block(4, 8)


def test_nothing_proposed():
    with pytest.raises(UsageError, match="no block was proposed"):
        run(hill, [])
    with pytest.raises(UsageError, match="ranked no block"):
        take_first([ranking("stability")])


def test_plans_from_results():
    top = take_first([ranking("stability", "4:8")])
    wanted = LayerPlan.duplicate(DEPTH, Block(4, 8))
    probe = {
        "schema": "surgeon.probe/1",
        "rankings": [ranking("stability", "4:8").model_dump(mode="json")],
    }
    run_document = {"schema": "surgeon.run/1", "selection": top.model_dump(mode="json")}
    for document in (probe, run_document, top.to_dict()):
        assert plan_from(document, DEPTH) == wanted
    assert len(plan_from(probe, DEPTH, times=3)) == 20
    with pytest.raises(UsageError, match="12 layers, the model has 24"):
        plan_from(probe, 24)
    with pytest.raises(UsageError, match="no winner"):
        plan_from(top.model_copy(update={"winner": None}).to_dict(), DEPTH)
    for bad in ({}, [], {"schema": "surgeon.inspect/1"}):
        with pytest.raises(UsageError, match="cannot take a block"):
            plan_from(bad, DEPTH)
    for bad in ({"schema": "surgeon.probe/1"}, {"schema": "surgeon.run/1"}):
        with pytest.raises(UsageError, match="incomplete"):
            plan_from(bad, DEPTH)


def test_a_selection_reads_back():
    selection, _ = run(hill, ["4:8"])
    assert Selection.from_dict(selection.to_dict()) == selection

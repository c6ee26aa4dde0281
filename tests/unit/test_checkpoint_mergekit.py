import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.block import Block
from surgeon.checkpoint.mergekit import from_mergekit, to_mergekit
from surgeon.errors import UsageError
from surgeon.plan import LayerPlan

FILE = """\
slices:
- sources:
  - model: owner/name
    layer_range: [0, 11]
- sources:
  - model: owner/name
    layer_range: [6, 24]
merge_method: passthrough
dtype: bfloat16
"""


def test_a_self_merge_is_a_plan():
    assert from_mergekit(FILE, 24) == LayerPlan.duplicate(24, Block(6, 11))
    assert from_mergekit(to_mergekit(from_mergekit(FILE, 24), "owner/name"), 24) == from_mergekit(
        FILE, 24
    )


@given(st.lists(st.integers(0, 7), min_size=1, max_size=30))
def test_round_trip(layers):
    plan = LayerPlan(8, tuple(layers))
    assert from_mergekit(to_mergekit(plan, "folder", "float16"), 8) == plan


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("slices: [", "not a YAML file"),
        ("- 1", "passthrough"),
        (FILE.replace("passthrough", "slerp"), "passthrough"),
        ("merge_method: passthrough", "no `slices`"),
        (FILE.replace("owner/name", "owner/other", 1), "several models"),
        (FILE.replace("[6, 24]", "[6, 25]"), "does not fit a model of 24"),
        (FILE.replace("[6, 24]", "[6]"), "not two whole numbers"),
        (FILE + "parameters:\n  scale: 0.5\n", "`parameters` cannot be expressed"),
        (FILE.replace("    layer_range: [6, 24]", "    weight: 1"), "`weight` cannot be"),
        ("slices:\n- 1\nmerge_method: passthrough", "exactly one source"),
    ],
)
def test_refused(text, match):
    with pytest.raises(UsageError, match=match):
        from_mergekit(text, 24)

"""Records: JSON round trip, schema tag, missing values, strictness."""

import json
import math
from typing import ClassVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.block import Block
from surgeon.errors import UnknownName, UsageError
from surgeon.plan import LayerPlan
from surgeon.record import Measured, Record


class Sample(Record):
    SCHEMA: ClassVar[str] = "surgeon.sample/1"

    block: Block
    plan: LayerPlan
    value: Measured
    note: str | None = None


@given(
    st.integers(0, 5),
    st.integers(1, 6),
    st.one_of(st.just(math.nan), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_round_trip_through_json(start, size, value):
    depth = 12
    block = Block(start, start + size)
    sample = Sample(block=block, plan=LayerPlan.duplicate(depth, block), value=value)
    back = Sample.from_dict(json.loads(sample.to_json()))
    assert back.block == block and back.plan == sample.plan
    assert back.value == value or (math.isnan(value) and math.isnan(back.value))
    jsonschema.validate(sample.to_dict(), Sample.json_schema())


def test_missing_is_null_in_json():
    sample = Sample(block=Block(1, 2), plan=LayerPlan.identity(3), value=math.nan)
    assert sample.to_dict() == {
        "schema": "surgeon.sample/1",
        "block": "1:2",
        "plan": {"depth": 3, "layers": ":"},
        "value": None,
        "note": None,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "surgeon.sample/2"}, "surgeon.sample/2"),
        ({"block": "5:2"}, "empty or negative"),
        ({"block": "5-7"}, "block"),
        ({"plan": {"depth": 3, "layers": "0:9"}}, "out of range"),
        ({"plan": {"depth": 3}}, "layers"),
        ({"extra": 1}, "extra"),
        ({"value": "x"}, "value"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    good = Sample(block=Block(1, 2), plan=LayerPlan.identity(3), value=1.0).to_dict()
    with pytest.raises(UsageError, match=message):
        Sample.from_dict({**good, **change})


def test_not_an_object():
    with pytest.raises(UsageError, match="list"):
        Sample.from_dict([])


def test_unknown_name_lists_names_and_the_nearest():
    error = UnknownName("scorer", "stabilty", ["stability", "anomaly"])
    assert "anomaly, stability" in str(error)
    assert error.hint == "did you mean `stability`?"
    assert error.exit_code == 2

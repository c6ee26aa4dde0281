"""The run folder: stages are kept, invalidated and never half written."""

import json

import pytest

from surgeon.errors import SurgeonError, UsageError
from surgeon.record import Record
from surgeon.runs import RunFolder, digest


class Number(Record):
    SCHEMA = "surgeon.number/1"

    value: int


class Counter:
    def __init__(self, value=1):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return Number(value=self.value)


def test_a_finished_stage_is_not_computed_again(tmp_path):
    count = Counter(7)
    first, done, reused = RunFolder(tmp_path / "run").stage("probe", {"a": 1}, Number, count)
    again, done_again, reused_again = RunFolder(tmp_path / "run").stage(
        "probe", {"a": 1}, Number, count
    )
    assert (first, done) == (again, done_again)
    assert (reused, reused_again, count.calls) == (False, True, 1)
    stored = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert stored == {"schema": "surgeon.number/1", "value": 7}


def test_changed_inputs_compute_anew(tmp_path):
    count = Counter()
    RunFolder(tmp_path).stage("probe", {"a": 1}, Number, count)
    _, _, reused = RunFolder(tmp_path).stage("probe", {"a": 2}, Number, count)
    assert not reused and count.calls == 2


def test_an_edited_or_missing_record_is_computed_anew(tmp_path):
    count = Counter()
    RunFolder(tmp_path).stage("probe", {}, Number, count)
    (tmp_path / "probe.json").write_text('{"schema": "surgeon.number/1", "value": 9}')
    record, _, _ = RunFolder(tmp_path).stage("probe", {}, Number, count)
    assert record.value == 1 and count.calls == 2
    (tmp_path / "probe.json").unlink()
    RunFolder(tmp_path).stage("probe", {}, Number, count)
    assert count.calls == 3


def test_what_a_record_describes_must_still_be_there(tmp_path):
    count = Counter()
    RunFolder(tmp_path).stage("save", {}, Number, count)
    RunFolder(tmp_path).stage("save", {}, Number, count, lambda record: False)
    assert count.calls == 2


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise SurgeonError("no")

    folder = RunFolder(tmp_path)
    folder.stage("probe", {"a": 1}, Number, Counter())
    with pytest.raises(SurgeonError):
        folder.stage("probe", {"a": 2}, Number, fail)
    assert "probe" not in json.loads((tmp_path / "stages.json").read_text())["stages"]


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        RunFolder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(tmp_path / "thesis.txt")


def test_a_broken_ledger_is_reported_not_overwritten(tmp_path):
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(SurgeonError, match=r"stages\.json"):
        RunFolder(tmp_path)
    assert (tmp_path / "stages.json").read_text() == "{"


def test_digest_ignores_key_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})

"""The ledger: no row lost, none twice, whatever is killed and however many write."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from surgeon.errors import SurgeonError
from surgeon.evals.stream import Drawn
from surgeon.sweeping.ledger import Ledger, Line, Row, Unit

INPUTS = {"model": "m", "seed": 1}


def line(plan, documents, task="cups"):
    rows = tuple(Row(float(at % 2), -at / 7, at) for at in documents)
    return Line(plan, task, tuple(documents), rows)


def unit(plans, documents, task="cups"):
    return Unit(tuple(plans), tuple(Drawn(task, at) for at in documents))


def rows_in(path):
    """Every (key, plan, task, document) of every whole line, as often as it is there."""
    found = Counter()
    for text in path.read_text().splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            continue
        for document in entry.get("documents", ()):
            found[entry["key"], entry["plan"], entry["task"], document] += 1
    return found


def test_rows_come_back_as_they_were(tmp_path):
    ledger = Ledger(tmp_path / "a" / "l.jsonl", INPUTS)
    assert ledger.append([line(":", [3, 1]), line(":8,4:", [3])]) == 3
    again = Ledger(tmp_path / "a" / "l.jsonl", INPUTS)
    assert again.rows(":", [Drawn("cups", 1), Drawn("cups", 3)]) == [
        Row(1.0, -1 / 7, 1),
        Row(1.0, -3 / 7, 3),
    ]
    assert again.missing(unit([":", ":8,4:"], [3, 1])) == {":8,4:": [Drawn("cups", 1)]}
    assert again.missing(unit([":"], [1], task="other")) == {":": [Drawn("other", 1)]}


def test_a_row_is_never_written_twice(tmp_path):
    path = tmp_path / "l.jsonl"
    one, two = Ledger(path, INPUTS), Ledger(path, INPUTS)
    assert one.append([line(":", [1, 2])]) == 2
    assert two.append([line(":", [2, 3])]) == 1
    assert one.append([line(":", [1, 2, 3])]) == 0
    assert set(rows_in(path).values()) == {1}
    assert path.read_text().count('"inputs"') == 1


def test_other_inputs_never_mix(tmp_path):
    path = tmp_path / "l.jsonl"
    Ledger(path, INPUTS).append([line(":", [1])])
    other = Ledger(path, {**INPUTS, "seed": 2})
    assert other.known == {}
    other.append([line(":", [1])])
    assert len({key for key, *_ in rows_in(path)}) == 2
    assert set(rows_in(path).values()) == {1}


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_cut_short_is_ended_ignored_and_measured_again(tmp_path, cut):
    path = tmp_path / "l.jsonl"
    Ledger(path, INPUTS).append([line(":", [1, 2]), line(":8,4:", [1, 2])])
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    ledger = Ledger(path, INPUTS)
    whole = cut == 1  # only its end is missing
    assert bool(ledger.missing(unit([":", ":8,4:"], [1, 2]))) != whole
    assert ledger.append([line(":8,4:", [1, 2])]) == (0 if whole else 2)
    final = Ledger(path, INPUTS)
    assert not final.missing(unit([":", ":8,4:"], [1, 2]))
    assert final.broken == (0 if whole else 1)
    assert set(rows_in(path).values()) == {1}


@pytest.mark.parametrize(
    "text", ["hello", "hello\n", "[1, 2]\n", "{\n  1\n}\n", '{"a": 1}\n', "\x00\x01\n"]
)
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(SurgeonError, match="not a ledger"):
        Ledger(path, INPUTS)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", [0, 1, 20, 60])
def test_a_first_line_cut_short_is_still_our_file(tmp_path, left):
    path = tmp_path / "l.jsonl"
    Ledger(path, INPUTS)
    path.write_bytes(path.read_bytes()[:left])
    for _ in range(2):
        assert Ledger(path, INPUTS).append([line(":", [1])]) <= 1
    assert set(rows_in(path).values()) == {1}


def test_a_ledger_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "l.jsonl").mkdir()
    with pytest.raises(SurgeonError, match="cannot open"):
        Ledger(tmp_path / "l.jsonl", INPUTS)


HOLD = """
import sys, time
from pathlib import Path
from surgeon.evals.stream import Drawn
from surgeon.sweeping.ledger import Ledger, Unit
ledger = Ledger(Path(sys.argv[1]), {"model": "m", "seed": 1})
with ledger.claim(Unit((":",), (Drawn("cups", 1),))) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_claim_holds_between_processes_and_ends_with_its_process(tmp_path):
    path = tmp_path / "l.jsonl"
    ledger = Ledger(path, INPUTS)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    with ledger.claim(unit([":"], [1])) as mine:
        assert not mine
    with ledger.claim(unit([":"], [2])) as mine:
        assert mine
    holder.kill()
    holder.wait()
    with ledger.claim(unit([":"], [1])) as mine:
        assert mine


WORK = """
import random, sys, time
from pathlib import Path
from surgeon.evals.stream import Drawn
from surgeon.sweeping.ledger import Ledger, Line, Row, Unit
ledger = Ledger(Path(sys.argv[1]), {"model": "m", "seed": 1})
plans = tuple(f"0:{n}" for n in range(1, 6))
units = [Unit(plans, tuple(Drawn("cups", d) for d in range(s, s + 8))) for s in range(0, 4800, 8)]
random.Random(sys.argv[2]).shuffle(units)
while left := [unit for unit in units if ledger.missing(unit)]:
    for unit in left:
        with ledger.claim(unit) as mine:
            if not mine or not (missing := ledger.missing(unit)):
                continue
            ids = tuple(d.doc_id for d in unit.documents)
            rows = tuple(Row(1.0, -float(i), i) for i in ids)
            ledger.append([Line(plan, "cups", ids, rows) for plan in missing])
            time.sleep(0.01)
"""


@pytest.mark.slow
def test_workers_killed_at_random_times_lose_and_double_nothing(tmp_path):
    path = tmp_path / "l.jsonl"
    rng = random.Random(0)
    workers, kills, seed = [], 0, 0
    want = {(f"0:{n}", d) for n in range(1, 6) for d in range(4800)}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        while len(workers) < 3:
            seed += 1
            workers.append(subprocess.Popen([sys.executable, "-c", WORK, str(path), str(seed)]))
        time.sleep(rng.uniform(0.0, 0.25))
        if all(worker.poll() == 0 for worker in workers):
            break
        if kills < 20:
            victim = rng.choice(workers)
            if victim.poll() is None:
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait()
                kills += 1
            workers.remove(victim)
        else:
            workers[0].wait()
    found = rows_in(path)
    assert kills >= 10
    assert set(found.values()) == {1}
    assert {(plan, document) for _, plan, _, document in found} == want

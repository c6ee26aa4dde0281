"""The parts of the cost measurement that need no model: turns, sizes, ratios, words."""

import json
import math
import subprocess
import sys

import pytest

from surgeon.cost import measure, meter
from surgeon.cost.result import Cost, ModelCost, Spread
from surgeon.errors import UsageError
from surgeon.report.costs import cost_line, cost_method, cost_rows


class Clock:
    """A clock that models advance."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class Model:
    """Takes a given time for each turn and notes when it was asked."""

    def __init__(self, name, seconds, clock, calls):
        self.name, self.seconds, self.clock, self.calls = name, list(seconds), clock, calls

    def ask(self, sizes):
        taken = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.clock.now += taken
        self.calls.append(self.name)
        return {"prefill": taken / 2, "decode": taken / 2}


def turns(monkeypatch, base, candidate, repeats=5, seconds=60.0):
    clock, calls = Clock(), []
    monkeypatch.setattr(measure, "time", clock)
    models = [Model("b", base, clock, calls), Model("c", candidate, clock, calls)]
    told = []
    made = measure._turns(models, {}, repeats, seconds, lambda *args: told.append(args))
    return made, "".join(calls), told


def test_turns_alternate_after_one_that_does_not_count(monkeypatch):
    (pairs, warm), calls, told = turns(monkeypatch, [9, 1], [9, 2], repeats=3)
    assert calls == "bc" + "bc" + "cb" + "bc"
    assert warm and [pair[0]["decode"] for pair in pairs] == [0.5] * 3
    assert [pair[1]["decode"] for pair in pairs] == [1.0] * 3
    assert told == [("cost", 1, 3), ("cost", 2, 3), ("cost", 3, 3)]


def test_no_turn_begins_after_its_time(monkeypatch):
    (pairs, warm), calls, _ = turns(monkeypatch, [10], [10], seconds=50)
    assert (len(pairs), warm, len(calls)) == (2, True, 6)  # at 20, 40; the next would be at 60
    (pairs, warm), calls, _ = turns(monkeypatch, [10], [10], seconds=20)
    assert (len(pairs), warm, len(calls)) == (1, True, 4)  # one counts, whatever it takes
    (pairs, warm), calls, _ = turns(monkeypatch, [40], [40], seconds=60)
    assert (len(pairs), warm, calls) == (1, False, "bc")


@pytest.mark.parametrize(
    ("positions", "fitting"),
    [
        ([None, None], (128, 32)),
        ([4096, None], (128, 32)),
        ([160, 160], (128, 32)),
        ([128, 256], (96, 32)),
        ([40, 40], (20, 20)),
        ([3, 3], (1, 2)),
    ],
)
def test_prompt_and_tokens_fit_the_positions(positions, fitting):
    made = measure._fitting(128, 32, positions)
    assert (made["prompt"], made["tokens"]) == fitting


@pytest.mark.parametrize("wrong", [{"prompt": 0}, {"tokens": 1}, {"repeats": 0}])
def test_too_small_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        measure.measure_cost(tmp_path, tmp_path, **wrong)


def test_rates_and_ratios_by_hand():
    one = {"prefill": 0.5, "decode": 2.0}
    two = {"prefill": 0.25, "decode": 4.0}
    sizes, about = {"prompt": 8, "tokens": 5}, {"weights": 100, "idle": 7}
    base = measure._model_cost([one, two], sizes, about, 50)
    assert base.prefill == Spread(values=(16, 32), median=24, low=16, high=32)
    assert base.decode == Spread(values=(2, 1), median=1.5, low=1, high=2)
    assert (base.weights, base.idle, base.peak) == (100, 7, 50)
    other = measure._model_cost([two, two], sizes, about, 50)
    assert measure._ratio(base.decode, other.decode).values == (0.5, 1.0)
    assert measure._ratio(base.prefill, other.prefill).values == (2.0, 1.0)


def made_cost(**changes):
    base = ModelCost(
        prefill=Spread.of([1000.0, 1100.0, 900.0]), decode=Spread.of([100.0, 90.0, 110.0]),
        weights=4_000_000, peak=30_000_000, idle=10_000_000,
    )  # fmt: skip
    candidate = ModelCost(
        prefill=Spread.of([750.0, 800.0, 700.0]), decode=Spread.of([76.0, 70.0, 80.0]),
        weights=5_000_000, peak=32_000_000, idle=10_000_000,
    )  # fmt: skip
    values = {
        "base": base, "candidate": candidate, "prefill_ratio": Spread.of([0.75]),
        "decode_ratio": Spread.of([0.76, 0.7, 0.8]), "batch": 1, "prompt": 128, "tokens": 32,
        "warm": True, "dtype": "bfloat16", "device": "cpu", "machine": "A processor",
        "threads": 1, "others": 0.05, "memory": meter.GENERATING,
    }  # fmt: skip
    return Cost(**values | changes)


def test_a_cost_in_words():
    cost = made_cost()
    assert cost_line(cost) == (
        "0.76x tokens/s in decoding (100 -> 76), 0.75x in prefill; 1.25x weights"
    )
    rows = {row[0]: row[1:] for row in cost_rows(cost)}
    assert rows["decode, tokens/s"] == (
        "100 (90 to 110)", "76 (70 to 80)", "0.76x (0.70x to 0.80x)"
    )  # fmt: skip
    assert rows["prefill, tokens/s"][2] == "0.75x"
    assert rows["weights as loaded, MB"] == ("4.0", "5.0", "1.25x")
    assert rows["peak memory above an empty process, MB"] == ("20.0", "22.0", "1.10x")
    (said,) = cost_method(cost)
    for part in ("A processor (cpu, 1 thread, bfloat16)", "batch 1", "128 random prompt tokens",
                 "3 turns of each", "after one uncounted", "while generating"):  # fmt: skip
        assert part in said, part
    on_gpu = made_cost(device="cuda", memory=meter.ALLOCATED)
    assert "thread" not in cost_method(on_gpu)[0] and "on the GPU" in cost_method(on_gpu)[0]


def test_a_cost_that_was_not_measured_says_why():
    nothing = dict.fromkeys(("base", "candidate", "prefill_ratio", "decode_ratio"))
    cost = made_cost(**nothing, missing="no memory")
    assert cost_line(cost) == "not measured: no memory"
    assert cost_rows(cost) == [] and "no memory" in cost_method(cost)[0]
    assert Cost.from_dict(json.loads(cost.to_json())) == cost


def test_a_busy_machine_is_said(monkeypatch):
    quiet, busy = made_cost(others=0.1), made_cost(others=1.8)
    unknown = made_cost(others=math.nan)
    assert not quiet.disturbed and not unknown.disturbed and busy.disturbed
    assert "busy" not in cost_line(quiet) and "the machine was busy" in cost_line(busy)
    assert "Other work kept 1.8 processors busy" in cost_method(busy)[1]
    assert unknown.to_dict()["others"] is None


def test_the_work_of_others_by_hand():
    turns = [
        {"prefill": 0.5, "decode": 1.5, "others": 1.0},
        {"prefill": 1.0, "decode": 1.0, "others": 3.0},
    ]
    assert measure._others(turns) == 1.0
    assert math.isnan(measure._others([turns[0], {**turns[1], "others": None}]))


@pytest.mark.skipif(not meter._MACHINE.is_file(), reason="no /proc/stat on this system")
def test_a_child_that_works_is_seen_as_other_work():
    before = meter.busy()
    program = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert meter.busy() - before > 0.9


def test_a_cost_reads_back():
    cost = made_cost()
    assert Cost.from_dict(json.loads(cost.to_json())) == cost
    assert cost.to_dict()["schema"] == "surgeon.cost/1"


def test_the_peak_is_this_process_own_and_starts_anew():
    """The child of a large process does not look large, and a freed peak is forgotten."""
    program = (
        "import json\n"
        "from surgeon.cost import meter\n"
        "start = meter.peak()\n"
        "ballast = b'x' * 120_000_000; high = meter.peak(); del ballast\n"
        "counted = meter.restart_peak(); low = meter.peak()\n"
        "print(json.dumps([start, high, low, counted]))"
    )
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    del ballast
    start, high, low, counted = json.loads(done.stdout)
    assert 1e6 < start < 200e6, "it counts what its parent holds"
    assert high - start > 100e6
    assert counted == meter.GENERATING and low < high - 100e6


def test_a_machine_without_proc_is_measured_by_rusage(monkeypatch, tmp_path):
    monkeypatch.setattr(meter, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(meter, "_CLEAR", tmp_path / "no" / "such")
    assert meter.restart_peak() == meter.WHOLE
    assert 1e6 < meter.resident() == meter.peak() < 100e9
    assert meter.processor()

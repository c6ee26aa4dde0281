"""`surgeon sweep` as a user runs it: files, JSON, errors, kill -9, two at a time."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from test_cli import sparse_model

from surgeon.hub import DEMO
from surgeon.sweeping.preview import SweepPlan
from surgeon.sweeping.result import SweepResult

FAST = ("--task", "cups", "--sizes", "4", "--limit", "64")


def rows_of(path):
    """{(plan, document): row}; a row that is there twice fails."""
    found = {}
    for text in path.read_text().splitlines():
        try:
            entry = json.loads(text)
        except ValueError:
            continue  # cut short by a kill
        if "plan" in entry:
            columns = (entry[name] for name in ("documents", "score", "gold", "chosen"))
            for document, *row in zip(*columns, strict=True):
                assert (entry["plan"], document) not in found
                found[entry["plan"], document] = row
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory, child):
    """A small sweep held against a probe, in a folder."""
    folder = tmp_path_factory.mktemp("sweep")
    probe = child("probe", "demo:planted", "--prompts", "task:cups", "--limit", "20", "--json")
    (folder / "probe.json").write_text(probe.stdout)
    done = child(
        "sweep", "demo:planted", *FAST, "--against", folder / "probe.json", "--out", folder / "out",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out", done


def test_stdout_is_one_valid_document_and_the_folder_holds_the_rest(swept):
    folder, done = swept
    data = json.loads(done.stdout)
    jsonschema.validate(data, SweepResult.json_schema())
    assert data == json.loads((folder / "sweep.json").read_text())
    assert data["winner"] == "4:8" and len(data["predictions"]) == 4
    names = {path.name for path in folder.iterdir()}
    assert {"sweep.jsonl", "sweep.html", "sweep_heat.png", "sweep_predictions.png"} <= names
    assert SweepResult.from_dict(data).to_dict() == data


def test_the_winner_can_be_duplicated_from_the_record(swept, surgeon, tmp_path):
    folder, _ = swept
    done = surgeon(
        "duplicate", "demo:planted", tmp_path / "m", "--from", folder / "sweep.json", "-n", "--json"
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["plan"] == {"depth": 12, "layers": ":8,4:"}


def test_quiet_prints_the_winner_and_the_table_names_chance(swept, surgeon):
    folder, _ = swept
    quiet = surgeon("sweep", "demo:planted", *FAST, "--out", folder, "-q", "--plots", "no")
    assert (quiet.stdout, quiet.stderr) == ("4:8\n", "")
    told = surgeon(
        "sweep", "demo:planted", *FAST, "--against", folder.parent / "probe.json", "--out", folder
    )
    assert "a random block" in told.stdout and "winner   4:8" in told.stdout
    assert "0 evaluations" in told.stdout


def test_a_dry_run_counts_and_touches_nothing(surgeon, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = surgeon("sweep", "demo:planted", "--times", "1..4", "--each-layer", "-n", "--json")
    data = json.loads(done.stdout)
    jsonschema.validate(data, SweepPlan.json_schema())
    assert data["candidates"] == 27 * 3 * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (("--times", "0"), 2, "at least 1"),
        (("--times", "1"), 2, "nothing to measure"),
        (("--times", "two"), 2, "--times"),
        (("--sizes", "x"), 2, "--sizes"),
        (("--sizes", "40:44"), 2, "nothing to measure"),
        (("--memory", "lots"), 2, "not a size"),
        (("--memory", "1"), 2, "needs about"),
        (("--task", "cpus"), 2, "cups"),
        (("--split", "test"), 2, "select"),
        (("--alpha", "2"), 2, "alpha"),
        (("--margin", "-1"), 2, "margin"),
        (("--beam", "-1"), 2, "beam"),
        (("--against", "nowhere.json"), 2, "nowhere.json"),
        (("--against", str(DEMO / "planted" / "config.json")), 2, "schema"),
        (("--ledger", str(DEMO / "planted" / "config.json")), 1, "ledger"),
        (("--out", str(DEMO / "planted" / "config.json" / "x")), 1, "cannot write"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(surgeon, tmp_path, monkeypatch, extra, code, said):
    monkeypatch.chdir(tmp_path)
    done = surgeon("sweep", "demo:planted", "--limit", "8", "--offline", *extra)
    assert done.exit_code == code
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_model_of_the_7b_class_is_refused(surgeon, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = sparse_model(tmp_path / "big", 6_740_000_000)
    done = surgeon("sweep", model, "--limit", "8")
    assert done.exit_code == 3 and "7B" in done.stderr


def start(folder, *extra):
    command = [sys.executable, "-m", "surgeon", "sweep", "demo:planted", "--task", "cups"]
    limits = ("--limit", "320", "--out", folder, "--plots", "no", "-q")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, limits), *map(str, extra)], **quiet, env=environment
    )


@pytest.mark.slow
def test_killed_at_random_and_two_at_a_time_nothing_is_lost_or_doubled(tmp_path):
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    assert start(whole).wait() == 0
    rng, kills = random.Random(1), 0
    while kills < 6:
        workers = [start(folder), start(folder)]
        ledger = folder / "sweep.jsonl"
        seen = ledger.stat().st_size if ledger.exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # in the middle of the work, not of the imports
            if ledger.exists() and ledger.stat().st_size > seen:
                break
            if all(worker.poll() is not None for worker in workers):
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
                kills += 1
            worker.wait()
        rows_of(ledger)
        if len(rows_of(ledger)) == 28 * 320:
            break
    assert kills >= 2
    assert [w.wait() for w in (start(folder), start(folder))] == [0, 0]
    killed, clean = rows_of(folder / "sweep.jsonl"), rows_of(whole / "sweep.jsonl")
    assert killed == clean and len(clean) == 28 * 320
    results = [json.loads((each / "sweep.json").read_text()) for each in (folder, whole)]
    assert results[0]["effects"] == results[1]["effects"]

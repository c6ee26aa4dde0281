"""The whole chain as a user runs it: result, records, resume, kill, refusals."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from small import COSTED, SMALL, hear_ctrl_c
from transformers import AutoModelForCausalLM, AutoTokenizer

from surgeon.block import Block
from surgeon.outcome import Outcome
from surgeon.recipe import Recipe, load_recipe

pytestmark = pytest.mark.slow

STAGES = ["inspect", "probe", "select", "duplicate", "verify", "check", "cost"]


def tree(folder):
    """Every file below a folder with the digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_planted_block_is_found_saved_and_confirmed(finished_run):
    _, done, outcome = finished_run
    jsonschema.validate(outcome, Outcome.json_schema())
    assert outcome["conclusion"] == "improved"
    winner = Block.parse(outcome["selection"]["winner"])
    assert winner.distance(Block(4, 8)) <= 1
    assert outcome["verdict"]["split"] == "confirm"
    assert outcome["verdict"]["difference"] > 0.1
    assert outcome["verdict"]["interval"][0] > 0
    assert outcome["verdict"]["losses"] + outcome["verdict"]["wins"] <= outcome["verdict"]["n"]
    assert [stage["name"] for stage in outcome["stages"]] == STAGES
    assert not any(stage["reused"] for stage in outcome["stages"])
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == STAGES


def test_every_record_is_on_disk_and_the_recipe_runs_again(finished_run):
    folder, _, outcome = finished_run
    for name in STAGES:
        record = json.loads((folder / f"{name}.json").read_text())
        assert record["schema"].startswith("surgeon.")
    assert json.loads((folder / "run.json").read_text()) == outcome
    assert load_recipe(str(folder / "recipe.yaml")) == Recipe.from_part(outcome["recipe"])


def test_plain_transformers_loads_the_model_and_it_solves_long_chains(finished_run):
    folder, _, _ = finished_run
    model, report = AutoModelForCausalLM.from_pretrained(folder / "model", output_loading_info=True)
    assert not any(report.values())
    assert model.config.num_hidden_layers > 12
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("cup a: red red red red red red red ->", return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1]
    # red sends a to j, j to h and so on: a j h g c d e b a, so seven times red sends a to b.
    assert tokenizer.decode(answer) == " b"


def test_a_finished_run_is_not_repeated_and_a_change_repeats_what_depends_on_it(
    finished_run, surgeon
):
    folder, _, first = finished_run
    again = json.loads(surgeon("run", "demo", "--out", folder, "--json", *COSTED).stdout)
    assert all(stage["reused"] for stage in again["stages"])
    assert again["verdict"] == first["verdict"]
    assert again["cost"] == first["cost"]
    other = surgeon("run", "demo", "--out", folder, "--json", *COSTED, "--set", "check.margin=0.05")
    stages = json.loads(other.stdout)["stages"]
    assert {stage["name"]: stage["reused"] for stage in stages} == {
        "inspect": True, "probe": True, "select": False,
        "duplicate": True, "verify": True, "check": False, "cost": True,
    }  # fmt: skip


def test_the_cost_is_measured_again_with_other_numbers_and_gone_when_not_wanted(
    finished_run, surgeon
):
    folder, _, first = finished_run
    cost = first["cost"]
    assert json.loads((folder / "cost.json").read_text()) == {"schema": "surgeon.cost/1", **cost}
    ratio = cost["candidate"]["weights"] / cost["base"]["weights"]
    assert 1.2 < ratio < 1.5 and len(cost["decode_ratio"]["values"]) == 2
    asked = ("run", "demo", "--out", folder, "--json", *COSTED)
    assert surgeon(*asked).exit_code == 0  # as it was, whatever other tests did to it
    other = json.loads(surgeon(*asked, "--set", "cost.tokens=4").stdout)
    assert [s["name"] for s in other["stages"] if not s["reused"]] == ["cost"]
    assert (cost["tokens"], other["cost"]["tokens"]) == (32, 4)
    without = json.loads(surgeon(*asked, "--set", "cost.enabled=false").stdout)
    assert without["cost"] is None and without["stages"][-1]["name"] == "check"
    assert "memory: not measured" in (folder / "report.html").read_text()


def test_a_cost_that_could_not_be_measured_does_not_end_the_run(
    tmp_path, finished_run, surgeon, monkeypatch
):
    from surgeon.cost import measure

    monkeypatch.setattr(measure.sys, "executable", "/bin/false")
    folder = shutil.copytree(finished_run[0], tmp_path / "run")
    (folder / "cost.json").unlink()
    asked = ("run", "demo", "--out", folder, "--json", *COSTED)
    done = json.loads(surgeon(*asked).stdout)
    assert done["conclusion"] == "improved" and done["stages"][-1]["text"].startswith(
        "not measured"
    )
    assert "ended with code 1" in done["cost"]["missing"]
    assert "ended with code 1" in (folder / "report.html").read_text()
    monkeypatch.undo()
    again = json.loads(surgeon(*asked).stdout)
    assert again["cost"]["missing"] is None, "what failed is tried again"


def test_a_damaged_model_folder_is_made_again(finished_run, surgeon):
    folder, _, _ = finished_run
    (folder / "model" / "surgeon.json").unlink()
    again = json.loads(surgeon("run", "demo", "--out", folder, "--json", *COSTED).stdout)
    stages = {stage["name"]: stage["reused"] for stage in again["stages"]}
    assert stages["probe"] and not stages["duplicate"]
    assert again["conclusion"] == "improved"


@pytest.mark.parametrize("last", ["probe", "select"])
def test_a_killed_run_goes_on_where_it_was(tmp_path, child, last):
    command = [sys.executable, "-m", "surgeon", "run", "demo", "--out", str(tmp_path / "run")]
    running = subprocess.Popen([*command, *SMALL], stderr=subprocess.PIPE, text=True)
    for line in running.stderr:
        if line.startswith(f"{last}:"):
            break
    time.sleep(0.2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = child(*command[3:], *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    kept = [stage["name"] for stage in outcome["stages"] if stage["reused"]]
    assert kept[: STAGES.index(last) + 1] == STAGES[: STAGES.index(last) + 1]
    assert outcome["conclusion"] == "improved"
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


def test_ctrl_c_ends_with_130_and_can_be_resumed(tmp_path):
    command = [sys.executable, "-m", "surgeon", "run", "demo", "--out", str(tmp_path / "run")]
    running = subprocess.Popen(
        [*command, *SMALL], stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    for line in running.stderr:
        if line.startswith("inspect:"):
            break
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in rest and "Traceback" not in rest


def test_the_control_is_not_called_improved(tmp_path, surgeon):
    result = surgeon("run", "control", "--out", tmp_path / "run", "--json", *SMALL)
    assert result.exit_code == 0
    outcome = json.loads(result.stdout)
    assert outcome["conclusion"] != "improved"
    assert (tmp_path / "run" / "model").exists() == (outcome["conclusion"] != "no winner")


def test_no_winner_saves_no_model_unless_asked(tmp_path, surgeon):
    impossible = ("--set", "select.min_gain=0.9", *SMALL)
    result = surgeon("run", "demo", "--out", tmp_path / "run", "--json", *impossible)
    outcome = json.loads(result.stdout)
    assert (result.exit_code, outcome["conclusion"], outcome["model"]) == (0, "no winner", None)
    assert outcome["selection"]["tried"] and outcome["verdict"]["split"] == "select"
    assert not (tmp_path / "run" / "model").exists()
    unmet = surgeon("run", "demo", "--out", tmp_path / "run", *impossible, "--require", "not-worse")
    assert unmet.exit_code == 5
    kept = surgeon("run", "demo", "--out", tmp_path / "run", "--json", "--keep", *impossible)
    assert json.loads(kept.stdout)["conclusion"] == "improved"
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_top1_duplicates_the_first_block_unmeasured(tmp_path, surgeon):
    result = surgeon(
        "run", "demo", "--out", tmp_path / "run", "--json", *SMALL,
        "--set", "select.candidates=top1", "--set", "probe.scorers=[anomaly]",
    )  # fmt: skip
    outcome = json.loads(result.stdout)
    assert outcome["selection"]["origin"] == "anomaly #1"
    assert outcome["selection"]["tried"] == []
    probed = json.loads((tmp_path / "run" / "probe.json").read_text())
    first = probed["rankings"][0]["entries"][0]["block"]
    assert outcome["selection"]["winner"] == first
    assert outcome["conclusion"] != "improved"  # the late block is not the planted one


def test_dry_run_touches_nothing(tmp_path, surgeon):
    result = surgeon("run", "demo", "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0 and "demo:planted" in result.stdout
    assert list(tmp_path.iterdir()) == []

"""`surgeon check` as a user meets it: streams, exit codes, files."""

import json
import re
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from surgeon.cli.app import app
from surgeon.evals.result import CheckResult

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny"))
from saved import save_plan

from surgeon.block import Block
from surgeon.plan import LayerPlan

DEMO = Path(__file__).parents[2] / "surgeon" / "demo" / "planted"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    out = tmp_path_factory.mktemp("saved") / "planted"
    return str(save_plan(DEMO, LayerPlan.duplicate(12, Block(4, 8)), out))


def run(*arguments):
    fixed = ["--task", "cups", "--device", "cpu", "--offline"]
    return CliRunner().invoke(app, ["check", "demo:planted", *fixed, *arguments])


def test_json_is_one_document_of_its_schema(planted):
    done = run(planted, "--json", "--require", "improved")
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    jsonschema.validate(data, CheckResult.json_schema())
    assert data["schema"] == "surgeon.check/1" and data["verdict"]["verdict"] == "improved"


def test_the_table_says_what_is_known(planted):
    done = run(planted, "--verbose")
    assert done.exit_code == 0
    for words in ("verdict  improved", "interval", "e-value", "one copy of the weights",
                  "answers flipped", "stopped as soon as it was clear"):  # fmt: skip
        assert words in re.sub(r"\s*\n\s*", " ", done.stdout), words
    assert re.search(r"n 32  0\.\d+ -> ", done.stderr)


def test_quiet_is_the_verdict_alone(planted):
    done = run(planted, "--quiet")
    assert (done.stdout, done.stderr) == ("improved\n", "")


def test_a_requirement_that_is_not_met_ends_with_5():
    done = run("demo:planted", "--quiet", "--require", "improved")
    assert done.exit_code == 5 and done.stdout == "equivalent\n"
    assert "--require improved is not met: the verdict is equivalent" in done.stderr
    assert run("demo:planted", "--quiet", "--require", "not-worse").exit_code == 0


def test_rows_and_plots_are_written(planted, tmp_path):
    pytest.importorskip("matplotlib")
    rows, plots = tmp_path / "rows.jsonl", tmp_path / "plots"
    done = run(planted, "--rows", str(rows), "--plots", str(plots), "--json")
    count = json.loads(done.stdout)["documents"]
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(lines) == count and {"base", "candidate", "doc_hash"} <= lines[0].keys()
    for name in ("check_forest.png", "check_running.png"):
        assert (plots / name).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/nowhere"], 2, "/nowhere"),
        (["demo:planted", "--weight", "1", "--weight", "2"], 2, "2 --weight for 1 --task"),
        (["demo:planted", "--system", "x"], 2, "--system needs --chat"),
        (["demo:planted", "--split", "train"], 2, "unknown split `train`"),
        (["demo:planted", "--task", "cupz"], 2, "unknown task `cupz`"),
        (["demo:planted", "--metric", "f1"], 2, "metric of `cups`"),
        (["demo:planted", "--limit", "0"], 2, "limit"),
        (["demo:planted", "--margin", "-1"], 2, "margin -1"),
        (["demo:planted", "--device", "abacus"], 2, "unknown device `abacus`"),
    ],
)
def test_bad_input_has_its_message_and_code(arguments, code, words):
    done = run(*arguments)
    assert done.exit_code == code and words in done.stderr
    assert done.stdout == ""

"""Surgery from the command line: plans in several notations, deployment, verification."""

import json

import pytest
from typer.testing import CliRunner

from surgeon.checkpoint.inspect import Inspection
from surgeon.checkpoint.manifest import Manifest, read_manifest
from surgeon.checkpoint.mergekit import MergekitFile
from surgeon.cli.app import app


@pytest.fixture
def surgeon():
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


def document(result, record):
    assert result.exit_code == 0, result.output
    return record.from_dict(json.loads(result.stdout))


@pytest.mark.slow
def test_mergekit_out_and_in(tmp_path, surgeon):
    file = tmp_path / "plan.yaml"
    made = document(
        surgeon(
            "duplicate", "demo:planted", file, "--block", "4:8", "--emit", "mergekit", "--json"
        ),
        MergekitFile,
    )
    assert made.text == file.read_text()
    again = surgeon("duplicate", "demo:planted", file, "--block", "4:8", "--emit", "mergekit")
    assert again.exit_code == 3 and made.text == file.read_text()
    manifest = document(
        surgeon("duplicate", "demo:planted", tmp_path / "out", "--from", file, "--json", "-n"),
        Manifest,
    )
    assert str(manifest.plan) == ":8,4:"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [([], "no multi-token-prediction tensors"), (["--emit", "mergekit"], "--drop-mtp cannot be")],
)
def test_prediction_layers_that_cannot_be_dropped(tmp_path, surgeon, more, reason):
    out = tmp_path / "out"
    done = surgeon("duplicate", "demo:planted", out, "--block", "4:8", "--drop-mtp", *more)
    assert done.exit_code == 2 and reason in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_several_blocks_dropped_layers_and_link_modes(tmp_path, surgeon):
    out = tmp_path / "out"
    done = surgeon(
        "duplicate", "demo:planted", out, "--block", "2:4", "--block", "6:7", "--times", "3",
        "--link", "copy", "-q",
    )  # fmt: skip
    assert done.exit_code == 0 and done.stdout.strip() == str(out)
    assert read_manifest(out).plan.layers == (
        0,
        1,
        2,
        3,
        2,
        3,
        2,
        3,
        4,
        5,
        6,
        6,
        6,
        7,
        8,
        9,
        10,
        11,
    )
    assert surgeon("verify", out, "--base", "demo:planted", "-q").stdout.strip() == "passed"
    further = surgeon("duplicate", out, tmp_path / "less", "--layers", ":2,6:", "-q")
    assert further.exit_code == 0
    manifest = read_manifest(tmp_path / "less")
    assert manifest.root.id == "planted"
    assert manifest.root_plan.layers == (0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 11)
    wrong = surgeon("duplicate", "demo:planted", out, "--block", "1:2", "--link", "soft")
    assert wrong.exit_code == 2 and "known: auto, copy, hard, reflink" in wrong.output


def test_deployment_report(surgeon):
    found = document(surgeon("inspect", "demo:planted", "--block", "4:8", "--json"), Inspection)
    assert [entry.target for entry in found.deployment] == [
        "transformers", "vLLM", "llama.cpp", "Ollama",
    ]  # fmt: skip
    assert "llama.cpp" in surgeon("inspect", "demo:planted", "--layers", "2:").stdout


@pytest.mark.slow
def test_verify_ends_with_1_where_a_check_fails(tmp_path, surgeon):
    out = tmp_path / "out"
    surgeon("duplicate", "demo:planted", out, "--block", "4:8")
    (out / "tokenizer.json").write_text("{}")
    result = surgeon("verify", out, "--base", "demo:planted", "--json")
    assert result.exit_code == 1
    states = {check["name"]: check["state"] for check in json.loads(result.stdout)["checks"]}
    assert states["digests"] == "failed" and states["structure"] == "passed"

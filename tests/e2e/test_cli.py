"""Every command: its JSON, its quiet form, its errors and exit codes, and what it must not load."""

import json
import struct
import subprocess
import sys

import jsonschema
import pytest

from surgeon.checkpoint.inspect import Inspection
from surgeon.checkpoint.manifest import Manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.evals.result import CheckResult
from surgeon.hub import DEMO
from surgeon.probing.engine import ProbeResult
from surgeon.verification.result import Verification

PLANTED = DEMO / "planted"
COMMANDS = ("run", "probe", "sweep", "duplicate", "check", "inspect", "verify")


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory, child):
    """The planted model with its block duplicated, and the child that wrote it."""
    out = tmp_path_factory.mktemp("models") / "upgraded"
    done = child("duplicate", "demo:planted", out, "--block", "4:8", "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def document(result, record):
    """The one JSON document on stdout, valid against the record's schema."""
    data = json.loads(result.stdout)
    jsonschema.validate(data, record.json_schema())
    record.from_dict(data)
    return data


def sparse_model(folder, parameters, depth=2):
    """A checkpoint of bf16 llama layers with a header and no data: a hole in the disk."""
    width = 64
    folder.mkdir()
    rows = parameters // width // depth
    tensors, at = {}, 0
    for layer in range(depth):
        nbytes = rows * width * 2
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = {
            "dtype": "BF16", "shape": [rows, width], "data_offsets": [at, at + nbytes],
        }  # fmt: skip
        at += nbytes
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": depth, "hidden_size": width, "vocab_size": 32,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# --- results


def test_probe_speaks_json_quiet_and_text(surgeon):
    asked = ("probe", "demo:planted", "--prompts", "task:cups", "--limit", "20")
    one = (*asked, "--scorer", "stability")
    data = document(surgeon(*one, "--json"), ProbeResult)
    first = data["rankings"][0]["entries"][0]["block"]
    assert surgeon(*one, "--quiet").stdout == f"{first}\n"
    text = surgeon(*asked).stdout
    for scorer in ("stability", "anomaly", "decisiveness", "consensus"):
        assert scorer in text


def test_duplicate_writes_what_the_manifest_says(upgraded):
    out, done = upgraded
    manifest = document(done, Manifest)
    assert manifest["plan"] == {"depth": 12, "layers": ":8,4:"}
    assert json.loads((out / "surgeon.json").read_text()) == manifest
    assert Checkpoint.open(out).depth == 16


def test_duplicate_takes_its_block_from_a_probe_by_pipe(tmp_path, surgeon):
    probed = surgeon(
        "probe", "demo:planted", "--prompts", "task:cups", "--limit", "20", "--json",
        "--scorer", "anomaly",
    )  # fmt: skip
    block = json.loads(probed.stdout)["rankings"][0]["entries"][0]["block"]
    start, stop = block.split(":")
    done = surgeon(
        "duplicate", "demo:planted", tmp_path / "out", "--from", "-", "--json", stdin=probed.stdout
    )
    layers = json.loads(done.stdout)["plan"]["layers"]
    assert layers in (f":{stop},{start}:", f":,{start}:")


def test_check_reports_a_verdict_and_meets_or_misses_a_requirement(upgraded, surgeon):
    out, _ = upgraded
    asked = ("check", "demo:planted", out, "--task", "cups", "--limit", "200")
    data = document(surgeon(*asked, "--json", "--require", "improved"), CheckResult)
    assert data["verdict"]["verdict"] == "improved"
    assert surgeon(*asked, "--quiet").stdout == "improved\n"
    back = surgeon(
        "check", out, "demo:planted", "--task", "cups", "--limit", "200", "--require", "not-worse"
    )
    assert back.exit_code == 5 and "worse" in back.stdout
    unmet = surgeon(*asked, "--json", "--require", "improved", "--limit", "2")
    assert unmet.exit_code == 5
    assert document(unmet, CheckResult)["verdict"]["verdict"] == "undecided"


def test_inspect_and_verify(upgraded, surgeon):
    out, _ = upgraded
    data = document(surgeon("inspect", "demo:planted", "--json"), Inspection)
    assert (data["model_type"], data["depth"]) == ("llama", 12)
    assert 1.9e6 < data["parameters"]["total"] < 2.1e6
    data = document(surgeon("verify", out, "--base", "demo:planted", "--json"), Verification)
    assert {check["state"] for check in data["checks"]} == {"passed"}


# --- the size guard


@pytest.mark.parametrize("command", ["duplicate", "run"])
def test_7b_is_refused_before_anything_is_written(tmp_path, surgeon, command):
    model, out = sparse_model(tmp_path / "big", 6_740_000_000), tmp_path / "out"
    args = (model, out, "--block", "0:1") if command == "duplicate" else ("demo", "-m", model)
    result = surgeon(command, *args, *(() if command == "duplicate" else ("--out", out)))
    assert result.exit_code == 3
    for part in ("6.7", "7B", "3B"):
        assert part in result.stderr
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big"]


@pytest.mark.parametrize(("billions", "warned"), [(6.4, True), (3.2, True), (1.1, False)])
def test_smaller_ones_pass_with_a_warning_from_3b_on(tmp_path, surgeon, billions, warned):
    model = sparse_model(tmp_path / "model", int(billions * 1e9))
    data = document(surgeon("inspect", model, "--json"), Inspection)
    assert data["size_class"] == ("unmeasured" if warned else "measured")
    from surgeon.checkpoint.guard import refuse_large

    assert bool(refuse_large(Checkpoint.open(model))) == warned


# --- errors


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("inspect", "./nowhere"), 2, "no folder `./nowhere`"),
        (("inspect", "demo:none"), 2, "control, planted"),
        (("probe", "demo:planted", "--scorer", "stabilty"), 2, "did you mean `stability`"),
        (("probe", "demo:planted", "--prompts", "nothing"), 2, "nothing"),
        (("probe", "demo:planted", "--sizes", "5:3"), 2, "--sizes"),
        (("probe", "demo:planted", "--sizes", "40"), 2, "12"),
        (("probe", "demo:planted", "--device", "tpu9"), 2, "tpu9"),
        (("probe", "demo:planted", "--dtype", "int3"), 2, "int3"),
        (("duplicate", "demo:planted", "{out}", "--block", "8:14"), 2, "has 12 layers"),
        (("duplicate", "demo:planted", "{out}", "--block", "8-11"), 2, "not a block"),
        (("duplicate", "demo:planted", "{out}"), 2, "exactly one of"),
        (("duplicate", "demo:planted", "{out}", "--layers", ":8,x"), 2, "not a slice"),
        (("duplicate", "demo:planted", "{out}", "--from", "none.json"), 2, "none.json"),
        (("duplicate", "demo:planted", "{parent}", "--block", "4:8"), 3, "--force"),
        (("check", "demo:planted", "demo:planted", "--task", "cupz"), 2, "cups"),
        (("run", "dmo"), 2, "did you mean `demo`"),
        (("run", "demo", "--set", "chck.documents=5", "--out", "{out}"), 2, "did you mean `check`"),
        (("run", "demo", "--set", "nonsense", "--out", "{out}"), 2, "KEY=VALUE"),
        (("run", "demo", "--set", "probe.scorers=[x]", "--out", "{out}"), 2, "unknown scorer"),
        (("run", "demo", "--set", "check.tasks=[x]", "--out", "{out}"), 2, "unknown task"),
        (("run", "demo", "-m", "./nowhere", "--out", "{out}"), 2, "no folder"),
        (("run", "demo", "--out", "{parent}"), 2, "not a run folder"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input_has_a_message_and_its_code_and_leaves_nothing(
    tmp_path, surgeon, args, code, message
):
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "mine.txt").write_text("mine")
    places = {"out": str(parent / "out"), "parent": str(parent)}
    result = surgeon(*(arg.format(**places) for arg in args))
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert result.stdout == ""
    assert [path.name for path in parent.iterdir()] == ["mine.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


def test_a_folder_that_is_no_model(tmp_path, surgeon):
    (tmp_path / "notes.txt").write_text("no model here")
    result = surgeon("duplicate", tmp_path, tmp_path.with_name("out"), "--block", "1:2")
    assert result.exit_code in (1, 3)
    assert "config.json" in result.stderr


def test_a_pickle_only_folder_is_refused(tmp_path, surgeon):
    (tmp_path / "config.json").write_text((PLANTED / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    result = surgeon("inspect", tmp_path)
    assert result.exit_code == 3 and "pickle" in result.stderr.lower()


def test_errors_in_json_mode_are_one_document(surgeon):
    result = surgeon("inspect", "demo:none", "--json")
    data = json.loads(result.stdout)
    assert (data["schema"], data["kind"], data["exit_code"]) == (
        "surgeon.error/1", "UnknownName", 2,
    )  # fmt: skip


def test_a_disk_that_is_too_small(tmp_path, surgeon, monkeypatch):
    from surgeon.checkpoint import disk

    monkeypatch.setattr(disk, "free_bytes", lambda path: 1000)
    result = surgeon("duplicate", "demo:planted", tmp_path / "out", "--block", "4:8")
    assert result.exit_code == 3
    assert "1,000" in result.stderr or "0.0" in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- what is loaded, and what goes where


def test_help_loads_nothing_heavy(child):
    code = (
        "import sys, surgeon.cli.app;"
        "heavy = {'torch', 'transformers', 'lm_eval', 'numpy', 'pydantic', 'yaml', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_duplicate_never_loads_torch(tmp_path):
    code = (
        "import sys; from surgeon.cli.app import app\n"
        f"args = ['duplicate', 'demo:planted', {str(tmp_path / 'out')!r}, '--block', '4:8', '-q']\n"
        "try: app(args)\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'transformers', 'lm_eval'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (tmp_path / "out" / "config.json").exists()


def test_quiet_leaves_stderr_empty(child):
    done = child(
        "probe", "demo:planted", "--prompts", "task:cups", "--limit", "5", "-q",
        "--scorer", "anomaly",
    )  # fmt: skip
    assert (done.returncode, done.stderr, len(done.stdout.split(":"))) == (0, "", 2)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_of_every_command(surgeon, command):
    result = surgeon(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    assert not command or "Example" in result.stdout

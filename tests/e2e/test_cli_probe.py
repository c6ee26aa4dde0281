"""`surgeon probe` as a command: output, files, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest
from small import hear_ctrl_c
from typer.testing import CliRunner

from surgeon.cli.app import app
from surgeon.probing.engine import ProbeResult

MODEL = str(files("surgeon") / "demo" / "planted")
FAST = ["--prompts", "task:cups", "--limit", "12", "--no-progress"]


def surgeon(*arguments):
    return CliRunner().invoke(app, ["probe", *arguments])


def test_table():
    done = surgeon(MODEL, *FAST, "--scorer", "stability", "--top", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("llama, 12 layers; 12 prompts (task:cups)")
    assert lines[1].split() == ["scorer", "circuit", "block", "score", "depth", "terms"]
    assert len([line for line in lines if line.startswith("stability")]) == 2


def test_json_is_one_document_that_reads_back():
    done = surgeon(MODEL, *FAST, "--json", "--robustness", "--scorer", "anomaly")
    data = json.loads(done.stdout)
    assert data["schema"] == "surgeon.probe/1" and data["compat"] is None
    result = ProbeResult.from_dict(data)
    assert result.to_dict() == data
    assert [row.name for row in result.robustness[0].rows] == ["10 random", "bootstrap"]
    assert data["stats"]["values"]["attention_entropy"] == [None] * 12
    assert "not asked for" in data["stats"]["missing"]["attention_entropy"]


def test_quiet_prints_the_first_block_and_nothing_else():
    done = surgeon(MODEL, *FAST, "-q", "--scorer", "anomaly")
    assert done.stdout == "9:12\n" and done.stderr == ""


def test_compat_ranks_every_block():
    done = surgeon(MODEL, *FAST, "--compat", "circuitprobe", "--json")
    data = json.loads(done.stdout)
    assert [r["scorer"] for r in data["rankings"]] == ["stability", "anomaly"]
    assert all(len(r["entries"]) == 27 and not r["unranked"] for r in data["rankings"])


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_plots(tmp_path, suffix):
    path = tmp_path / f"plot.{suffix}"
    done = surgeon(MODEL, *FAST, "--scorer", "stability", "--plot", str(path))
    assert done.exit_code == 0, done.output
    start = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[suffix]
    assert path.read_bytes().startswith(start) and path.stat().st_size > 10_000


def test_several_prompt_sets_give_languages():
    done = surgeon(
        MODEL, "--prompts", "reasoning-fr", "--prompts", "reasoning-hi", "--robustness",
        "--scorer", "anomaly", "--json", "--no-progress", "--max-tokens", "64",
    )  # fmt: skip
    data = json.loads(done.stdout)
    assert data["prompts"]["name"] == "reasoning-fr+reasoning-hi"
    names = [row["name"] for row in data["robustness"][0]["rows"]]
    assert {"fr", "hi"} <= set(names) and "zh" not in names


def test_contrastive_on_the_default_prompts():
    done = surgeon(MODEL, "--scorer", "contrastive", "--json", "--no-progress")
    assert len(json.loads(done.stdout)["rankings"][0]["entries"]) == 27
    done = surgeon(MODEL, *FAST, "--scorer", "contrastive")
    assert done.exit_code == 2 and "there are no general ones" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--scorer", "stabilty"], 2, "did you mean `stability`?"),
        (["--sizes", "13:15"], 2, "no block of 13 layers or more fits: the model has 12 layers"),
        (["--sizes", "5:3"], 2, "--sizes `5:3` is not a range"),
        (["--prompts", "no-such-set"], 2, "no-such-set"),
        (["--device", "gpu"], 2, "unknown device `gpu`"),
        (["--dtype", "float8"], 2, "unknown dtype `float8`"),
        (["--compat", "other"], 2, "unknown compat mode `other`; known: circuitprobe"),
        (["--compat", "circuitprobe", "--scorer", "consensus"], 2, "has no scorer `consensus`"),
        (["--plot", "x.gif"], 2, "cannot plot to `x.gif`; known: .png, .svg, .html"),
        (["--plot", "/no/such/folder/x.png"], 1, "no folder `/no/such/folder`"),
        (["--chat-template"], 2, "the tokenizer has no chat template"),
    ],
)
def test_errors(arguments, code, says):
    done = surgeon(MODEL, *FAST, *arguments)
    assert done.exit_code == code, done.output
    assert says in done.stderr and done.stdout == ""


def test_no_model_there(tmp_path):
    done = surgeon(str(tmp_path), *FAST)
    assert done.exit_code == 1 and "config.json" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", b"good line\n\xff\xfe bad\n", "UTF-8"),
        ("p.jsonl", b'{"text": "  "}\n', "p.jsonl"),
        ("p.txt", b"\n\n", "p.txt"),
    ],
)
def test_hostile_prompt_files(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    done = surgeon(MODEL, "--prompts", str(path), "--no-progress")
    assert done.exit_code == 2 and says in done.stderr


def test_a_prompt_of_100k_characters_is_cut_with_a_warning(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("cup a: " + "red blue " * 12_000 + "\ncup b: red ->\n")
    done = surgeon(MODEL, "--prompts", str(path), "--scorer", "boundary", "--no-progress")
    assert done.exit_code == 0, done.output
    assert "warning: 1 of 2 prompts were cut to 256 tokens" in done.stderr


@pytest.mark.slow
def test_interrupt_ends_with_130_and_leaves_nothing(tmp_path):
    command = [
        sys.executable, "-m", "surgeon", "probe", MODEL, "--prompts", "task:cups",
        "--scorer", "jacobian", "--plot", str(tmp_path / "x.png"),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert child.stderr is not None
    for line in child.stderr:  # the first stage is over: the long one has begun
        if line.startswith("probe:"):
            break
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130 and out == ""
    assert list(tmp_path.iterdir()) == []


def test_prompts_without_easy_ones_are_warned_about():
    says = "label-free scores lean on prompts whose answer the model is sure of"
    plain = surgeon(MODEL, "--prompts", "general", "--scorer", "consensus", "--no-progress")
    assert plain.exit_code == 0 and f"warning: {says}" in plain.stderr
    task = surgeon(
        MODEL, "--prompts", "task:cups", "--limit", "60", "--scorer", "consensus", "--no-progress"
    )
    assert task.exit_code == 0 and says not in task.stderr


def test_prompts_from_the_documents_of_a_task():
    tasks = Path(__file__).parents[1] / "tiny" / "tasks"
    asked = ("demo:planted", "--prompts", "lm-eval:t_choice", "--include-path", tasks, "--offline")
    done = surgeon(*map(str, asked), "--scorer", "anomaly", "--limit", "5", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["prompts"]
    assert (found["name"], found["count"]) == ("lm-eval:t_choice", 5)
    done = surgeon("demo:planted", "--prompts", "lm-eval:nosuch", "--offline")
    assert done.exit_code == 2 and "nosuch" in done.stderr

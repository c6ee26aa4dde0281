"""What the documentation shows is what happens: library, shell script and help examples."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, serving
from made_run import SETTINGS, made_run

from surgeon.cli import check, duplicate, env, inspect, push, recipes, report, run, topics, verify

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
SMALL += ["--set", "cost.enabled=false"]


@pytest.fixture
def shell(tmp_path):
    """Runs a line in an empty folder where `surgeon` is this checkout's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    shim = programs / "surgeon"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m surgeon "$@"\n')
    shim.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()

    def call(line, **variables):
        environment = {
            **os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN, **variables,
        }  # fmt: skip
        return subprocess.run(
            ["bash", "-c", line], cwd=work, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    call.folder = work
    return call


def test_the_pipeline_script_pushes_what_improved(shell):
    script = ROOT / "recipes/pipeline.sh"
    with serving() as hub:
        line = " ".join(f"'{each}'" for each in [script, "demo:planted", "me/upgraded", *SMALL])
        done = shell(line, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert json.loads((shell.folder / "outcome.json").read_text())["conclusion"] == "improved"
        pushed = json.loads((shell.folder / "push.json").read_text())
        assert pushed["upload"]["url"] == f"{hub.url}/me/upgraded"
        assert "model.safetensors" in hub.tree(hub.repositories["me/upgraded"], "main")
        assert done.stdout == "" and TOKEN not in done.stderr


def test_the_pipeline_script_stops_where_nothing_improved(shell):
    script = ROOT / "recipes/pipeline.sh"
    with serving() as hub:
        line = " ".join(f"'{each}'" for each in [script, "demo:control", "me/upgraded", *SMALL])
        done = shell(line, HF_ENDPOINT=hub.url)
        assert done.returncode == 5, done.stderr
        assert hub.repositories == {} and not (shell.folder / "push.json").exists()


def test_the_workflow_calls_the_script():
    workflow = yaml.safe_load((ROOT / "recipes/workflow.yml").read_text())
    steps = workflow["jobs"]["upgrade"]["steps"]
    called = [step for step in steps if "pipeline.sh" in step.get("run", "")]
    assert called and set(called[0]["env"]) == {"MODEL", "REPOSITORY", "HF_TOKEN"}
    assert all("secrets." not in step.get("run", "") for step in steps)


def examples():
    """Every example of every `--help`, in an order in which each finds what it needs."""
    modules = (inspect, topics, env, recipes, run, report, duplicate, verify, check, push)
    for module in modules:
        text = module.EPILOG
        for line in re.split(r"Examples?:|·", text):
            if line.strip():
                yield " ".join(line.split())


def test_every_example_of_the_help_runs(shell):
    shutil.copytree(made_run(), shell.folder / "runs/demo")
    shutil.copytree(ROOT / "surgeon/demo/planted", shell.folder / "model")
    shutil.copy(made_run() / "check.json", shell.folder / "check.json")
    with serving() as hub:
        for line in examples():
            if "gsm8k" in line:
                continue  # the data set is on the Hub
            if "duplicate" in line or "--check check.json" in line:
                shutil.rmtree(shell.folder / "upgraded", ignore_errors=True)
            if "--check check.json" in line:
                shutil.copytree(made_run() / "model", shell.folder / "upgraded")
            small = "surgeon run demo" in line or "run my.yaml" in line
            done = shell(f"{line} {' '.join(map(repr, SMALL)) if small else ''}",
                         HF_ENDPOINT=hub.url)  # fmt: skip
            fine = (0, 5) if "--require" in line else (0,)
            assert done.returncode in fine, f"{line}\n{done.stderr}"

"""What the documentation shows is what happens: library, shell script and help examples."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, serving
from made_run import SETTINGS, made_run

from surgeon.cli.app import COMMANDS
from surgeon.recipe import find_recipe, recipe_names

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


ORDER = [
    "inspect",
    "topics",
    "env",
    "recipes",
    "run",
    "report",
    "probe",
    "sweep",
    "duplicate",
    "verify",
    "check",
    "push",
]
"""Modules of commands, so that the example of each finds what it needs."""

HUB_DATA = "gsm8k"
"""A task whose documents are on the Hub."""


def examples():
    """Every example of every `--help`."""
    modules = {module.__name__.rpartition(".")[2]: module for module in COMMANDS}
    assert set(ORDER) == set(modules)
    for name in ORDER:
        found = re.split(r"Examples?:|·", modules[name].EPILOG)[1:]
        assert found, f"the help of {name} has no example"
        for line in found:
            yield " ".join(line.split())


def settings(line):
    """What makes a run of a recipe, or a sweep, take seconds."""
    if "surgeon sweep" in line:
        return "--limit 64"
    return " ".join(map(repr, SMALL)) if "surgeon run" in line else ""


def test_every_example_of_the_help_runs(shell):
    shutil.copytree(made_run(), shell.folder / "runs/demo")
    shutil.copytree(ROOT / "surgeon/demo/planted", shell.folder / "model")
    shutil.copy(made_run() / "check.json", shell.folder / "check.json")
    with serving() as hub:
        for line in examples():
            if "duplicate" in line or "--check check.json" in line:
                shutil.rmtree(shell.folder / "upgraded", ignore_errors=True)
            if "--check check.json" in line:
                shutil.copytree(made_run() / "model", shell.folder / "upgraded")
            if HUB_DATA in line:  # not here: it must get as far as that, and say so
                done = shell(f"{line} --offline")
                assert done.returncode == 1 and HUB_DATA in done.stderr, f"{line}\n{done.stderr}"
                continue
            done = shell(f"{line} {settings(line)}", HF_ENDPOINT=hub.url)
            fine = (0, 5) if "--require" in line else (0,)
            assert done.returncode in fine, f"{line}\n{done.stderr}"


def header_commands(name):
    """The commands in the comment at the top of a recipe, with its placeholders filled in."""
    header = find_recipe(name).read_text(encoding="utf-8").partition("\nmodel:")[0]
    text = re.sub(r"\\\n#\s*", "", header)
    lines = re.findall(r"(?m)^#   (surgeon .*)$", text)
    for line in lines:
        line = re.split(r"\s{3,}", line)[0]
        yield line.replace("MODEL", "demo:planted").replace("OWNER/NAME", "me/upgraded")


def test_the_commands_in_the_recipes_run(shell, surgeon, tmp_path, monkeypatch):
    """As they stand, but on few documents and on a tiny model under the published name.

    Those of the other families are run in tests/tiny/test_recipes_run.py.
    """
    save_like = runpy.run_path(str(ROOT / "tests/tiny/recipe_models.py"))["save_like"]
    model = save_like("qwen2.5-0.5b", tmp_path / "qwen")
    names = ["demo", "control", "pipeline", "sweep", "qwen2.5-0.5b"]
    lines = [line for name in names for line in header_commands(name)]
    assert len(lines) == 7 and all(list(header_commands(name)) for name in recipe_names())
    # From the README.
    lines.append("surgeon push runs/qwen2.5-0.5b me/other")
    monkeypatch.chdir(shell.folder)
    with serving() as hub:
        hub.add("Qwen/Qwen2.5-0.5B", {each.name: each.read_bytes() for each in model.iterdir()})
        for line in lines:
            command, arrow, target = line.partition(" > ")
            command = f"{command} {settings(command)}"
            if "qwen" not in line.lower() and "push" not in line:  # needs no Hub: quicker here
                done = surgeon(*shlex.split(command)[1:])
                assert done.exit_code == 0, f"{line}\n{done.stderr}"
                continue
            command += " --keep" if "surgeon run" in line else ""
            command += " --allow-verdict" if "runs/qwen" in line else ""
            done = shell(
                f"{command}{arrow}{target}", HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home")
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert set(hub.repositories) == {"Qwen/Qwen2.5-0.5B", "me/upgraded", "me/other"}
        pushed = hub.repositories["me/other"]
        card = hub.objects[hub.tree(pushed, "main")["README.md"][0]].decode()
        assert "base_model: Qwen/Qwen2.5-0.5B" in card

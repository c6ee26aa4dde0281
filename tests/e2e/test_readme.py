"""The README's commands and its library example, run as they stand on the demo model."""

import re
import shlex
from pathlib import Path

import pytest
from small import SMALL

from surgeon.hub import DEMO

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FETCHES = ("qwen2.5-0.5b", "push")


def commands():
    """Every `surgeon ...` line of a fenced block, without its comment."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.S | re.M)
    blocks = [body for language, body in fences if not language]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("surgeon ")]


def test_there_are_commands_to_test():
    assert len(commands()) >= 9
    assert sum(any(word in line for word in FETCHES) for line in commands()) == 2


def test_the_commands_do_what_they_say(tmp_path, monkeypatch, surgeon):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(DEMO / "planted")
    for line in commands():
        if any(word in line for word in FETCHES):  # needs the Hub
            continue
        piped = ""
        for part in line.split(" | "):
            args = shlex.split(part)[1:]
            if args[0] == "duplicate" and Path("upgraded").exists():
                args.append("--force")
            small = {"run": SMALL, "sweep": ("--limit", "100")}.get(args[0], ())
            done = surgeon(*args, *small, stdin=piped)
            assert done.exit_code == 0, (line, done.stderr)
            piped = done.stdout


def test_the_library_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(DEMO / "planted")
    # The demo model knows one game only.
    exec(example.replace('"deduction"', '"cups"').replace('"reasoning"', '"task:cups", limit=50'))
    assert capsys.readouterr().out.startswith("improved")

"""The command line, called in this process (fast) or in a child (real)."""

import json
import subprocess
import sys

import pytest
from small import COSTED
from typer.testing import CliRunner

from surgeon.cli.app import app


@pytest.fixture
def surgeon():
    """Calls a command in this process."""
    runner = CliRunner()

    def call(*args, stdin=None):
        result = runner.invoke(app, [str(arg) for arg in args], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture(scope="session")
def child():
    """Calls a command in a child process."""

    def call(*args, **options):
        command = [sys.executable, "-m", "surgeon", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)

    return call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, child):
    """A finished demo run on few documents: its folder and the child that made it."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    done = child("run", "demo", "--out", folder, "--json", *COSTED)
    assert done.returncode == 0, done.stderr
    return folder, done, json.loads(done.stdout)

"""Shell completion, asked as the shells ask it, and in the shells themselves."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surgeon.cli.complete import joined
from surgeon.hub import DEMO_MODELS
from surgeon.probing.prompts import SETS
from surgeon.recipe import recipe_names
from surgeon.score import SCORERS
from surgeon.tasks import TASKS
from surgeon.topics import TOPICS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
MODELS = [f"demo:{name}" for name in DEMO_MODELS]
PROMPTS = [*SETS, *(f"task:{name}" for name in TASKS)]
COMMANDS = [
    "run",
    "probe",
    "duplicate",
    "check",
    "inspect",
    "verify",
    "report",
    "push",
    "env",
    "help",
    "recipes", "sweep",
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with the `surgeon` program of this checkout."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "surgeon"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from surgeon.cli.app import main\nmain()\n"
    )
    program.chmod(0o755)
    return folder


@pytest.fixture
def ask(programs):
    """Asks as bash does: words, the last of which is being typed."""

    def call(*words, **variables):
        asked = {
            "_SURGEON_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(["surgeon", *words]),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run(
            [programs / "surgeon"], env={**os.environ, **asked, **variables},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout.split()

    return call


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ([""], COMMANDS),
        (["run", ""], recipe_names()),
        (["recipes", ""], ["ls", "show", "cp", "validate", "schema"]),
        (["recipes", "show", ""], recipe_names()),
        (["recipes", "validate", "demo", ""], recipe_names()),
        (["run", "demo", "--model", ""], MODELS),
        (["run", "demo", "--require", ""], ["improved", "not-worse"]),
        (["probe", ""], MODELS),
        (["probe", "x", "--scorer", ""], SCORERS),
        (["probe", "x", "--scorer", "anomaly", "--scorer", ""], SCORERS),
        (["probe", "x", "--prompts", ""], PROMPTS),
        (["check", "x", ""], MODELS),
        (["check", "x", "y", "--task", ""], TASKS),
        (["verify", "x", "--base", ""], MODELS),
        (["help", ""], TOPICS),
        (["inspect", "x", "--l"], ["--layers"]),
    ],
    ids=" ".join,
)
def test_what_is_known_is_offered(ask, words, known):
    assert sorted(ask(*words)) == sorted(known)


def test_every_long_option_of_a_command_is_offered(ask, surgeon):
    for command in ("run", "probe", "check"):
        shown = set(re.findall(r"--[a-z][a-z-]+", surgeon(command, "--help").stdout))
        offered = set(ask(command, "--"))
        assert offered <= shown and {"--json", "--quiet", "--help"} <= offered
        assert len(offered) > 10


def test_only_what_begins_so_is_offered(ask):
    assert ask("run", "qwen3") == ["qwen3-0.6b", "qwen3-1.7b"]
    assert ask("run", "./mine") == ask("duplicate", "x", "") == []  # the shell offers files


def test_bash_takes_a_colon_for_a_word(ask):
    assert ask("inspect", "demo", ":", "pl") == ["planted"]
    assert ask("inspect", "demo", ":") == list(DEMO_MODELS)
    assert ask("probe", "demo", ":", "planted", "--prompts", "task", ":", "cu") == ["cups"]
    assert sorted(ask("probe", "demo", ":", "planted", "--scorer", "")) == sorted(SCORERS)


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ([], 0, ([], 0)),
        (["a", "b"], 1, (["a", "b"], 1)),
        (["a", "b"], 2, (["a", "b"], 2)),
        (["a", "b", ":", "c", "d"], 4, (["a", "b:c", "d"], 2)),
        (["a", "b", ":", "c", "d"], 3, (["a", "b:c", "d"], 1)),
        (["a", "b", ":"], 2, (["a", "b:"], 1)),
        (["a", ":", ":", "b"], 3, (["a::b"], 0)),
    ],
)
def test_words_around_colons_are_joined(words, at, expected):
    assert joined(words, at) == expected


def test_completion_is_quick_and_loads_nothing_heavy(ask, programs):
    asked = {
        "_SURGEON_COMPLETE": "complete_bash", "COMP_WORDS": "surgeon\nrun\n", "COMP_CWORD": "2",
    }  # fmt: skip
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'huggingface_hub', 'matplotlib'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "from surgeon.cli.app import main\nsys.argv = ['surgeon']\nmain()\n"
    )
    env = {**os.environ, **asked, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == recipe_names() and done.stderr == "[]\n"
    times = []
    for words in (("run", ""), ("probe", "x", "--scorer", ""), ("probe", "x", "--prompts", "")):
        started = time.monotonic()
        ask(*words)
        times.append(time.monotonic() - started)
    assert min(times) < 0.5 and max(times) < 2, times  # a busy machine takes longer


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command, environment):
        self.child, self.screen = pty.fork()
        if self.child == 0:
            os.execvpe(command[0], command, environment)
        self.seen = ""

    def type(self, keys):
        os.write(self.screen, keys.encode())

    def wait_for(self, text, seconds=20):
        """What was shown until `text` came, which is then forgotten."""
        ends = time.monotonic() + seconds
        while text not in self.seen:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self.screen], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self.seen += os.read(self.screen, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self):
        os.close(self.screen)
        os.waitpid(self.child, 0)


SHELLS = {
    "bash": ["bash", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "-i"],
}


@pytest.mark.parametrize("shell", SHELLS)
def test_an_installed_completion_works_in_the_shell(shell, programs, tmp_path):
    """Install it, start the shell anew, type the beginning of a line, press tab."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    home = {
        **os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}",
        "TERM": "dumb" if shell == "fish" else "xterm", "PS1": "$ ",
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
    }  # fmt: skip
    installed = subprocess.run(
        [shell, "-c", "surgeon --install-completion; true"], env=home, cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "completion installed" in installed.stdout, installed.stdout + installed.stderr
    terminal = Terminal(SHELLS[shell], home)
    try:
        terminal.type("echo rea''dy\n")
        terminal.wait_for("ready")
        if shell == "zsh":  # the first tab only loads the function
            terminal.type("surgeon run q\t")
            time.sleep(1.5)
            terminal.type("\x15")
        for line, completed in (
            ("surgeon run qwen3-0", "surgeon run qwen3-0.6b"),
            ("surgeon inspect demo:pl", "surgeon inspect demo:planted"),
            ("surgeon probe x --scorer dec", "surgeon probe x --scorer decisiveness"),
        ):
            terminal.type(f"{line}\t")
            time.sleep(1.0)
            # To the beginning of the line, so that it is echoed instead of run.
            terminal.type("\x01echo \x05 ended\n")
            terminal.wait_for(f"{completed} ended")
    finally:
        terminal.type("\x03\x15exit\n")
        terminal.close()

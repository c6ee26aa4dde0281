"""`surgeon push` from the command line to a Hub on loopback."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hub_server import TOKEN, Fault, serving
from made_run import made_run

pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    with serving() as running:
        yield running


def push(server, *arguments, token=TOKEN):
    environment = {
        **os.environ, "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token, "HF_TOKEN_PATH": "/nonexistent", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "surgeon", "push", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip


def changed_verdict(folder, verdict):
    for name in ("check.json", "run.json"):
        data = json.loads((folder / name).read_text())
        data["verdict"]["verdict"] = verdict
        (folder / name).write_text(json.dumps(data))


def test_push_through_faults_says_url_and_commit_and_no_token(server):
    server.faults = [
        Fault("POST", "repos/create", 429),
        Fault("PUT", "/lfs/", "drop", after_bytes=1000),
        Fault("POST", "/commit/", "drop-after"),
    ]
    folder = made_run()
    done = push(server, folder, "someone/upgraded", "--private", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    repository = server.repositories["someone/upgraded"]
    assert not server.faults and len(repository.commits) == 2 and repository.private
    assert made["upload"]["commit"] == repository.branches["main"]
    assert made["verdict"] == "improved" and "structure" in made["verified"]
    tree = server.tree(repository, "main")
    listed = {each["name"] for each in json.loads((folder / "duplicate.json").read_text())["files"]}
    assert set(tree) == listed | {"surgeon.json", "README.md", ".gitattributes"}
    for name in listed:
        assert server.objects[tree[name][0]] == (folder / "model" / name).read_bytes()
    card = server.objects[tree["README.md"][0]].decode()
    assert 'from_pretrained("someone/upgraded"' in card
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("verdict", ["worse", "undecided"])
def test_a_bad_verdict_is_refused_unless_allowed(server, tmp_path, verdict):
    folder = shutil.copytree(made_run(), tmp_path / "run")
    changed_verdict(folder, verdict)
    done = push(server, folder / "model", "someone/upgraded")
    assert done.returncode == 3 and f"is {verdict}" in done.stderr
    assert "--allow-verdict" in done.stderr and server.log == []
    done = push(server, folder / "model", "someone/upgraded", "--allow-verdict", "-q")
    assert done.returncode == 0 and done.stdout.strip() == f"{server.url}/someone/upgraded"
    tree = server.tree(server.repositories["someone/upgraded"], "main")
    card = server.objects[tree["README.md"][0]].decode()
    assert f"**{verdict.capitalize()}** on `cups`" in card


def test_a_checkpoint_outside_a_run_needs_its_check(server, tmp_path):
    model = shutil.copytree(made_run() / "model", tmp_path / "alone")
    done = push(server, model, "someone/upgraded")
    assert done.returncode == 3 and "never checked" in done.stderr
    done = push(
        server, model, "someone/upgraded", "--check", made_run() / "check.json", "--dry-run"
    )
    assert done.returncode == 0 and "improved" in done.stdout, done.stderr
    assert server.log == []
    check = json.loads((made_run() / "check.json").read_text()) | {"plan": ":3,2:"}
    (tmp_path / "other.json").write_text(json.dumps(check))
    done = push(server, model, "someone/upgraded", "--check", tmp_path / "other.json")
    assert done.returncode == 2 and "the check is of plan" in done.stderr


def test_a_changed_checkpoint_is_not_pushed(server, tmp_path):
    folder = shutil.copytree(made_run(), tmp_path / "run")
    weights = folder / "model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = push(server, folder, "someone/upgraded")
    assert done.returncode == 1 and "failed verification" in done.stderr and server.log == []


@pytest.mark.parametrize("token", ["", "hf_ExpiredToken00000000"])
def test_exit_4_when_a_login_is_needed(server, token):
    done = push(server, made_run(), "someone/upgraded", "--json", token=token)
    assert done.returncode == 4 and "hf auth login" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 4
    assert not token or token not in done.stdout + done.stderr


def test_an_edited_card_goes_up_as_it_is(server, tmp_path):
    folder = shutil.copytree(made_run(), tmp_path / "run")
    card = folder / "model/README.md"
    card.write_text(card.read_text() + "\nMy own words.\n")
    (folder / "model/notes.txt").write_text("stays here")
    done = push(server, folder, "someone/upgraded", "--pr")
    assert done.returncode == 0, done.stderr
    tree = server.tree(server.repositories["someone/upgraded"], "refs/pr/1")
    assert server.objects[tree["README.md"][0]].decode().endswith("My own words.\n")
    assert "notes.txt" not in tree

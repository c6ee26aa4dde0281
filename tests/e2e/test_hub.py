"""Fetching and uploading against a real HTTP server on loopback, with faults."""

import logging
import subprocess
import sys

import pytest
from hub_server import TOKEN, Fault, serving

from surgeon import hub
from surgeon.errors import NeedsLogin, SurgeonError, UsageError

WEIGHTS = bytes(range(256)) * 2_000  # 512 kB


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield running


@pytest.fixture
def files(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(WEIGHTS)
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    return {
        "model.safetensors": weights,
        "config.json": config,
        "README.md": b"---\ntags: [surgeon]\n---\n# Card\n",
    }


def send(files, **options):
    return hub.upload(files, "someone/upgraded", message="Add the model", pause=0, **options)


def holds_exactly(server, files, revision="main"):
    repository = server.repositories["someone/upgraded"]
    tree = server.tree(repository, revision)
    assert set(tree) == {*files, ".gitattributes"}
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert server.objects[tree[name][0]] == data, name
    assert len(repository.commits) == 2, "the first one and ours"


def test_upload_is_one_commit_that_holds_every_file(server, files):
    made = send(files, private=True)
    holds_exactly(server, files)
    assert server.repositories["someone/upgraded"].private
    assert made.files == {"model.safetensors": 512_000, "config.json": 23, "README.md": 31}
    assert made.commit in made.commit_url and made.attempts == 1
    assert made.url == f"{server.url}/someone/upgraded"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "repos/create", 429),
        Fault("POST", "repos/create", 500),
        Fault("POST", "preupload", 503),
        Fault("POST", "objects/batch", 500),
        Fault("PUT", "/lfs/", 500),
        Fault("PUT", "/lfs/", 429),
        Fault("PUT", "/lfs/", "drop", after_bytes=100_000),
        Fault("POST", "lfs-verify", "drop"),
        Fault("POST", "/commit/", 500),
        Fault("POST", "/commit/", 429),
        Fault("POST", "/commit/", "drop"),
        Fault("POST", "/commit/", "drop-after"),
        Fault("GET", "/revision/", 502),
    ],
    ids=lambda fault: f"{fault.path.strip('/')}-{fault.action}",
)
def test_one_fault_anywhere_loses_and_doubles_nothing(server, files, fault):
    server.faults = [fault]
    send(files)
    assert not server.faults, "the fault was met"
    holds_exactly(server, files)


def test_a_storm_of_faults_is_weathered_and_weights_are_sent_once(server, files):
    server.faults = [
        Fault("POST", "repos/create", 500),
        Fault("POST", "preupload", 429),
        Fault("PUT", "/lfs/", "drop", after_bytes=50_000),
        Fault("PUT", "/lfs/", 500),
        Fault("POST", "/commit/", 500),
        Fault("POST", "/commit/", "drop-after"),
    ]
    made = send(files)
    assert not server.faults and made.attempts == 3
    holds_exactly(server, files)
    assert server.sent.values() and sum(server.sent.values()) == len(WEIGHTS)


def test_attempts_are_bounded(server, files):
    server.faults = [Fault("POST", "/commit/", 500)] * 50
    with pytest.raises(SurgeonError, match="failed") as caught:
        send(files, attempts=3)
    assert server.count("POST", "/commit/") == 3
    assert "goes on where it stopped" in caught.value.hint
    server.faults = []
    server.log.clear()
    send(files)
    holds_exactly(server, files)
    assert server.count("PUT", "/lfs/") == 0, "the weights were there already"


def test_pushing_the_same_again_makes_no_commit(server, files):
    first = send(files)
    assert send(files).commit == first.commit
    holds_exactly(server, files)


def test_a_file_the_hub_lost_is_noticed(server, files, monkeypatch):
    keep = server.commit

    def lose(repository, branch, tree):
        return keep(repository, branch, {k: v for k, v in tree.items() if k != "config.json"})

    monkeypatch.setattr(server, "commit", lose)
    with pytest.raises(SurgeonError, match=r"`config\.json` with None bytes, sent 23"):
        send(files)


def test_branch_and_pull_request(server, files):
    assert send(files, revision="trial").revision == "trial"
    holds_exactly(server, files, "trial")
    repository = server.repositories["someone/upgraded"]
    assert set(server.tree(repository, "main")) == {".gitattributes"}
    made = send({**files, "extra.txt": b"more"}, pull_request=True)
    assert made.pull_request == f"{server.url}/someone/upgraded/discussions/1"
    assert repository.pulls == [{"title": "Add the model", "status": "open"}]
    assert set(server.tree(repository, "main")) == {".gitattributes"}
    assert "extra.txt" in server.tree(repository, "refs/pr/1")


def test_a_lost_answer_opens_no_second_pull_request(server, files):
    server.faults = [Fault("POST", "/commit/", "drop-after"), Fault("PUT", "/lfs/", "drop")]
    send(files, pull_request=True)
    assert len(server.repositories["someone/upgraded"].pulls) == 1


def test_login_problems_end_with_exit_code_4_and_name_the_command(server, files, monkeypatch):
    with pytest.raises(NeedsLogin, match="may not write") as caught:
        hub.upload(files, "strangers/upgraded", message="x", pause=0)
    assert caught.value.exit_code == 4 and "hf auth login" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_ExpiredToken00000000")
    with pytest.raises(NeedsLogin, match="does not accept the token"):
        send(files)
    assert server.count("POST", "repos/create") == 2, "not tried again"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(NeedsLogin, match="needs a login"):
        send(files)


def test_the_token_is_in_no_message_and_no_log(server, files, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.faults = [Fault("POST", "/commit/", 500)] * 9  # the server echoes the header
    with pytest.raises(SurgeonError) as caught:
        send(files, attempts=2)
    said = str(caught.value) + str(caught.value.hint) + caplog.text + "".join(capfd.readouterr())
    assert "Bearer ***" in said and TOKEN not in said
    assert caught.value.__cause__ is None, "a traceback would show the client library's message"


def test_a_signed_url_is_not_quoted():
    error = OSError("PUT 'https://store.example/a/b?X-Sign=abc&Key=d' failed for hf_abcdefgh12")
    said = hub._without_tokens(error, "unused")
    assert said == "PUT 'https://store.example/a/b?***' failed for ***"


def test_the_client_library_is_silent_and_gets_its_voice_back(server, files, capfd, caplog):
    from huggingface_hub.utils import logging as client

    before = client.get_verbosity()
    server.faults = [Fault("PUT", "/lfs/", "drop", after_bytes=10)]
    send(files)
    assert "".join(capfd.readouterr()) == "" and client.get_verbosity() == before


def test_usage_errors(server, files):
    with pytest.raises(UsageError, match="not a repository id"):
        hub.upload(files, "upgraded", message="x")
    with pytest.raises(UsageError, match="main branch"):
        send(files, revision="trial", pull_request=True)
    with pytest.raises(SurgeonError, match="no metadata"):
        send({**files, "README.md": b"# no front matter"})


MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.safetensors": b"x",
    "README.md": b"card",
}


def test_fetch_takes_safetensors_only_at_a_commit(server):
    repository = server.add("someone/base", MODEL)
    found = hub.resolve("someone/base")
    assert found.revision == repository.branches["main"] and found.name == "someone/base"
    assert {p.name for p in found.path.iterdir()} == {
        "config.json", "model.safetensors", "README.md"
    }  # fmt: skip
    server.log.clear()
    assert hub.resolve(f"someone/base@{found.revision}", offline=True) == found
    assert server.log == []


def test_fetch_survives_faults(server):
    server.add("someone/base", MODEL)
    server.faults = [Fault("GET", "/resolve/", 500), Fault("GET", "/resolve/", "drop")]
    found = hub.resolve("someone/base")
    assert (found.path / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("someone/gated", NeedsLogin, "is gated"),
        ("someone/private", NeedsLogin, "does not exist or is private"),
        ("someone/nothing", NeedsLogin, "does not exist or is private"),
        ("someone/base@nowhere", SurgeonError, "no revision `nowhere`"),
        ("someone/pickle", SurgeonError, "no safetensors weights"),
        ("no-such-folder", UsageError, "no folder"),
        ("demo:nothing", UsageError, "unknown demo model"),
    ],
)
def test_fetch_errors_say_what_to_do(server, monkeypatch, model, kind, message):
    monkeypatch.delenv("HF_TOKEN")
    server.add("someone/base", MODEL)
    server.add("someone/gated", MODEL, gated=True)
    server.add("someone/private", MODEL, private=True)
    server.add("someone/pickle", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(kind, match=message) as caught:
        hub.resolve(model)
    assert type(caught.value) is kind or kind is UsageError


def test_fetch_with_an_expired_token_asks_for_a_login(server, monkeypatch):
    server.add("someone/base", MODEL)
    monkeypatch.setenv("HF_TOKEN", "hf_ExpiredToken00000000")
    with pytest.raises(NeedsLogin):
        hub.resolve("someone/base")


def test_offline_without_a_cache_says_so(server):
    with pytest.raises(SurgeonError, match="not in the cache") as caught:
        hub.resolve("someone/base", offline=True)
    assert "without --offline" in caught.value.hint and server.log == []


@pytest.mark.slow
def test_uploading_a_gigabyte_holds_little_memory(server, tmp_path):
    server.keep_objects = False
    big = tmp_path / "model.safetensors"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    program = (
        "import re, sys; from pathlib import Path; from surgeon.hub import upload\n"
        "upload({'model.safetensors': Path(sys.argv[1])}, 'someone/big', message='x')\n"
        # not ru_maxrss: that one is handed down from the parent through exec
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(int(peak) // 1024)"
    )
    environment = {
        "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "PATH": "/usr/bin",
        "HF_HUB_OFFLINE": "0", "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, str(big)],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert sum(server.sent.values()) == 1 << 30
    assert int(done.stdout) <= 200, f"{done.stdout.strip()} MiB"

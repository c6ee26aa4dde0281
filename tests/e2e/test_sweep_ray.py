"""Sweeps on a real cluster of two Ray nodes, and what happens when there is none."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

import surgeon
from surgeon.errors import SurgeonError, UsageError
from surgeon.hub import resolve
from surgeon.sweeping import ray_connection
from surgeon.sweeping.sweep import sweep

pytest.importorskip("ray", reason="needs ray: pip install 'surgeon[ray]'")

from ray_nodes import Cluster
from small import hear_ctrl_c

pytestmark = pytest.mark.slow

GRID = {"sizes": [4], "times": [2, 3], "each": True, "documents": 320}

SWEEP = """
import json, sys
from pathlib import Path
from surgeon.sweeping.sweep import sweep
model, ledger, address, grid = sys.argv[1:5]
found = sweep(model, ["cups"], **json.loads(grid), ray=address or None, ledger=Path(ledger))
print(json.dumps(found.to_dict()))
"""


@pytest.fixture(scope="module")
def planted():
    return resolve("demo:planted").path


@pytest.fixture(scope="module")
def cluster():
    made = None
    try:
        made = Cluster()
        made.second()
        yield made
    finally:
        if made:
            made.stop()


def start(model, ledger, address):
    """A sweep in a process of its own, with one thread."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(model), str(ledger), address, json.dumps(GRID)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=hear_ctrl_c,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return json.loads(out), err  # nothing but our JSON is on stdout


def rows(path):
    """(plan, task, document) -> row, and how often each is in the file."""
    found, times = {}, Counter()
    for line in path.read_text().splitlines()[1:]:
        entry = json.loads(line)
        columns = (entry[name] for name in ("documents", "score", "gold", "chosen"))
        for document, *row in zip(*columns, strict=True):
            times[entry["plan"], entry["task"], document] += 1
            found[entry["plan"], entry["task"], document] = row
    return found, times


def known(path):
    """Lines of rows in a ledger that someone is writing."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def wait_until(true, running=None, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert running is None or running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def test_ctrl_c_leaves_the_cluster_as_it_was(cluster, planted, tmp_path):
    ledger = tmp_path / "stopped.jsonl"
    running = start(planted, ledger, cluster.address)
    wait_until(lambda: known(ledger) and cluster.head.workers(), running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert out == ""
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    wait_until(lambda: not any(node.workers() for node in cluster.nodes))
    assert all(node.process.is_running() for node in cluster.nodes)
    assert set(rows(ledger)[1].values()) == {1}


def test_a_node_killed_in_the_middle_changes_nothing(cluster, planted, tmp_path):
    local = tmp_path / "local.jsonl"
    here, _ = finish(start(planted, local, ""))

    spread = tmp_path / "spread.jsonl"
    second = cluster.nodes[-1]
    running = start(planted, spread, cluster.address)
    wait_until(lambda: known(spread), running)
    cluster.head.freeze()  # or it may do all the work while the other node loads
    wait_until(lambda: second.freeze("ray::RemoteWorker.answer"), running)
    before = known(spread)
    second.kill()  # at work on a unit for certain: its worker is stopped in the middle of it
    cluster.head.resume()
    found, noise = finish(running)

    expected, _ = rows(local)
    got, times = rows(spread)
    assert 0 < before < len(expected)
    assert set(times.values()) == {1}
    assert got == expected  # bit for bit: one thread there, one thread here
    assert "workers lost while they measured: 1; others did their part" in found["notes"]
    assert noise == ""
    for name in ("effects", "winner", "base", "base_gold", "documents", "inputs"):
        assert found[name] == here[name], name
    assert found["cost"]["evaluations"] == len(expected)
    assert found["cost"]["workers"] == 2


def test_a_process_on_the_same_ledger_shares_the_work(cluster, planted, tmp_path):
    ledger = tmp_path / "both.jsonl"
    with (tmp_path / "both.jsonl.lock").open("w") as locks:
        # About half of the units are claimed by this process.
        fcntl.lockf(locks, fcntl.LOCK_EX, 2**55, 0)
        running = start(planted, ledger, cluster.address)
        wait_until(lambda: known(ledger), running)
        alone = sweep(planted, ["cups"], **GRID, ledger=ledger)
    spread, _ = finish(running)
    got, times = rows(ledger)
    assert set(times.values()) == {1}
    assert alone.cost.evaluations > 0 and spread["cost"]["evaluations"] > 0
    assert alone.cost.evaluations + spread["cost"]["evaluations"] == len(got)
    assert spread["documents"] == alone.documents == GRID["documents"]


def test_an_error_of_a_worker_comes_back_as_it_is(cluster, planted, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in planted.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    [weights] = broken.glob("*.safetensors")
    tensors = load_file(weights)
    name = next(name for name in sorted(tensors) if "down_proj" in name)
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SurgeonError) as alone:
        sweep(broken, ["cups"], sizes=[4], documents=8)
    with pytest.raises(SurgeonError) as spread:
        sweep(broken, ["cups"], sizes=[4], documents=8, ray=cluster.address)
    assert type(spread.value) is type(alone.value)
    assert str(spread.value) == str(alone.value)
    assert spread.value.hint == alone.value.hint


def test_a_port_that_is_no_cluster_is_an_error_in_bounded_time(planted, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(ray_connection, "CONNECT_SECONDS", 4)
        started = time.monotonic()
        with pytest.raises(SurgeonError, match=r"cannot connect .*: no answer within 4 s"):
            sweep(planted, ["cups"], documents=8, ray=f"127.0.0.1:{port}")
        assert time.monotonic() - started < 30
    started = time.monotonic()
    with pytest.raises(SurgeonError, match=rf"cannot connect .*127.0.0.1:{port}.*refused"):
        sweep(planted, ["cups"], documents=8, ray=f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(SurgeonError, match="refused"):
        sweep(planted, ["cups"], documents=8, ray="auto")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("address", ["local", "ray://head:10001", "head", "head:port", ""])
def test_other_addresses_are_refused(planted, address):
    with pytest.raises(UsageError, match="HOST:PORT"):
        sweep(planted, ["cups"], documents=8, ray=address)


def test_a_missing_package_says_how_to_get_it(planted, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SurgeonError, match="ray") as error:
        sweep(planted, ["cups"], documents=8, ray="auto")
    assert error.value.hint == "pip install 'surgeon[ray]'"
    assert surgeon.__version__ and sweep(planted, ["cups"], sizes=[4], documents=8).documents == 8

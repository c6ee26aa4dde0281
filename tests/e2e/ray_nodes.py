"""A real Ray cluster on this machine: a head and a second node, one CPU each."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

STORE = "--object-store-memory=100000000"


class Node:
    """A `ray start` that stays in the foreground, with all that it started."""

    def __init__(self, log, *options):
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        self.log, self.frozen = log, []
        self.process = psutil.Popen(
            [*command, STORE, "--disable-usage-stats", *options],
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def processes(self):
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_started(self, seconds=60):
        end = time.monotonic() + seconds
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def workers(self, title="ray::RemoteWorker"):
        """Its workers whose title starts so.

        A worker has the title `ray::RemoteWorker.answer` until its answer is on its way.
        """
        return [each for each in self.processes() if _title(each).startswith(title)]

    def freeze(self, title="ray::RemoteWorker"):
        """Stop its workers whose title starts so; says whether there was one."""
        for process in self.workers(title):
            process.suspend()
            if _title(process).startswith(title):
                self.frozen.append(process)
            else:
                process.resume()
        return bool(self.frozen)

    def resume(self):
        for process in self.frozen:
            process.resume()
        self.frozen.clear()

    def kill(self):
        """Kill -9, all at once: a machine that loses its power."""
        victims = self.processes()
        for process in victims:
            if process.is_running():
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=10)


class Cluster:
    """Two nodes; the second can be killed and started again."""

    def __init__(self):
        # Ray's sockets need short paths, so this is no tmp_path.
        self.folder = Path(tempfile.mkdtemp(prefix="sr", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.nodes = []
        port = self.address.partition(":")[2]
        self._start("--head", f"--port={port}", "--include-dashboard=false",
                    f"--temp-dir={self.folder}")  # fmt: skip
        self.head = self.nodes[0]

    def _start(self, *options):
        node = Node(self.folder / f"node{len(self.nodes)}.log", *options)
        self.nodes.append(node)
        node.wait_started()
        return node

    def second(self):
        return self._start(f"--address={self.address}")

    def stop(self):
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""

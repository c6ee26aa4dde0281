"""Connecting to a Ray cluster that someone else started, in bounded time and quietly."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from types import ModuleType

from surgeon.errors import SurgeonError, UsageError

TCP_SECONDS = 5
CONNECT_SECONDS = 60

_ADDRESS = re.compile(r"(?P<host>[\w.\-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")

_QUIET = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would ship the working directory
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",  # makes the next one work
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what the cluster has to say goes to stdout otherwise
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a notice about a future version
}

_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except (ConnectionError, RuntimeError, ValueError, OSError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
ray.shutdown()
"""


def connect(address: str) -> tuple[ModuleType, bool]:
    """Join a running cluster; none is ever started.

    Nothing is sent there but the units of work: `surgeon` has to be installed on the nodes.

    Args:
        address: `HOST:PORT` of the head, or `auto` for the cluster this machine belongs to.

    Returns:
        The `ray` package, and whether the connection was made here, so is ours to end.

    Raises:
        UsageError: an address of another form.
        SurgeonError: the package is missing, or the cluster does not answer in time.
    """
    os.environ.update(_QUIET)  # read when ray is imported
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SurgeonError(
            "--ray needs the package `ray`, which is not installed",
            hint="pip install 'surgeon[ray]'",
        ) from error
    if ray.is_initialized():
        return ray, False
    _reach(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _refusal(address, str(error)) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # ray puts its own there
    return ray, True


def _reach(address: str) -> None:
    """See that the cluster answers.

    `ray.init` tries a dead address for minutes inside a call that no signal interrupts, so a
    child tries first, which can be stopped.
    """
    where = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    match = _ADDRESS.fullmatch(where)
    if match:
        host, port = match["host"].strip("[]"), int(match["port"])
        try:
            socket.create_connection((host, port), timeout=TCP_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _refusal(where, str(error)) from error
    elif where != "auto":
        raise UsageError(
            f"--ray `{where}`: expected HOST:PORT of the head of a running cluster, or `auto`",
            hint="`ray status` on one of its machines shows the address"
            if "://" not in where
            else "run on a machine of the cluster; Ray Client addresses are not supported",
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, where],
            capture_output=True,
            text=True,
            timeout=CONNECT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise _refusal(where, f"no answer within {CONNECT_SECONDS} s") from error
    if done.returncode:
        raise _refusal(where, done.stderr.strip())


def _refusal(address: str, reason: str) -> SurgeonError:
    lines = [line for line in reason.splitlines() if line.strip()] or ["no reason given"]
    named = [line for line in lines if re.match(r"\w*Error: ", line)]
    return SurgeonError(
        f"cannot connect to the Ray cluster `{address}`: {(named or lines)[-1].strip()}",
        hint="start one with `ray start --head`, and run this on one of its machines",
    )

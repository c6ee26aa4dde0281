"""The memory of this process, and the machine it runs on.

`ru_maxrss` is not used where `/proc` is there: on Linux a new process inherits it from the
one that started it, so that a small child of a large parent looks large.
"""

import os
import platform
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/stat")
_PEAK_OF_RESIDENT = "5"  # what to write to clear_refs to start VmHWM anew; proc(5)

GENERATING = "largest resident size of a process of its own while generating"
WHOLE = "largest resident size of a process of its own, loading included"
ALLOCATED = "most memory allocated on the GPU while generating"


def resident() -> int:
    """Bytes that are resident now; on systems without /proc the most so far."""
    return _status("VmRSS") or _maximum()


def peak() -> int:
    """Most bytes that were resident since the last `restart_peak`."""
    return _status("VmHWM") or _maximum()


def restart_peak() -> str:
    """Forget the peak so far, where the system can.

    Returns:
        What `peak` will count.
    """
    try:
        _CLEAR.write_text(_PEAK_OF_RESIDENT)
    except OSError:
        return WHOLE
    return GENERATING


def _status(field: str) -> int:
    """A size of /proc/self/status in bytes; 0 where there is none."""
    if not _STATUS.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[field].split()[0]) * 1024 if field in lines else 0


def _maximum() -> int:
    import resource  # not there on Windows, and not needed where /proc is

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def busy() -> float | None:
    """Processor seconds that the whole machine has worked so far; None where unknown.

    Includes what other machines on the same hardware took from it (`steal`); proc(5).
    """
    try:
        fields = _MACHINE.read_text().split()
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    """The processor's own name, or the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.processor() or platform.machine()

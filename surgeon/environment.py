"""What a result depends on besides its inputs: versions, machine, settings."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from surgeon.hub import is_logged_in
from surgeon.record import Record
from surgeon.version import __version__

PACKAGES = (
    "torch", "transformers", "lm_eval", "huggingface_hub", "safetensors", "tokenizers",
    "numpy", "scipy", "pydantic", "datasets", "accelerate", "matplotlib", "ray",
)  # fmt: skip
VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


class Environment(Record):
    """Versions and machine; never a token, only whether there is one."""

    SCHEMA: ClassVar[str] = "surgeon.env/1"

    surgeon: str
    python: str
    platform: str
    packages: dict[str, str | None]
    devices: tuple[str, ...]
    cpus: int
    free_disk_bytes: int
    variables: dict[str, str]
    logged_in: bool


def look_around() -> Environment:
    """The environment of this process."""
    return Environment(
        surgeon=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        devices=_devices(),
        cpus=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        logged_in=is_logged_in(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count()))

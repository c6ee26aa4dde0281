"""Which other files of a model folder travel with it, and which stay behind."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.checkpoint.index import INDEX_NAME, SINGLE_NAME

_CARRIED = (
    "*.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json",
    "chat_template*", "*.jinja", "*.txt", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip
_NEVER = (
    "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5",
    "*.gguf", "*.onnx", "consolidated*", "params.json", "adapter_*", "training_args*",
    "trainer_state*", "optimizer*", "scheduler*", "rng_state*", ".*",
)  # fmt: skip
_WRITTEN = ("config.json", "surgeon.json", INDEX_NAME, SINGLE_NAME)
MAX_BYTES = 1_000_000_000  # of one carried file; tokenizers have tens of megabytes


@dataclass(frozen=True)
class Ancillary:
    """Names of the files carried over and of everything left behind."""

    carried: tuple[str, ...]
    left: tuple[str, ...]


def judge(folder: Path, config: dict[str, Any], weights: set[str]) -> Ancillary:
    """Sort the other files of a model folder.

    Args:
        folder: the source.
        config: its config.json; local code it names travels.
        weights: names of the safetensors files, which are rewritten.
    """
    code = _local_code(config)
    carried: list[str] = []
    left: list[str] = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if name in _WRITTEN or name in weights:
            continue
        taken = (
            path.is_file()
            and path.stat().st_size <= MAX_BYTES
            and (name in code or (_matches(name, _CARRIED) and not _matches(name, _NEVER)))
        )
        (carried if taken else left).append(name + ("" if path.is_file() else "/"))
    return Ancillary(tuple(carried), tuple(left))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _local_code(config: dict[str, Any]) -> set[str]:
    """Python files that `auto_map` names without another repository."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return set()
    values = [item for value in auto_map.values() for item in _flat(value)]
    modules = {value.partition(".")[0] for value in values if "--" not in value}
    return {f"{module}.py" for module in modules if module.isidentifier()}


def _flat(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else [value]
    return [item for item in items if isinstance(item, str)]

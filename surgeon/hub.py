"""Where a model comes from: a folder, the bundled demo, or one revision on the Hub.

The only file that uses the network. Downloads are safetensors only; pickle is never asked
for. A revision is resolved to its commit once, and that commit is what gets recorded.
"""

import os
import re
from pathlib import Path

from surgeon.errors import NeedsLogin, SurgeonError, UnknownName, UsageError
from surgeon.record import Record

DEMO = Path(__file__).parent / "demo"
DEMO_MODELS = ("planted", "control")

FILES = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.jinja",
    "LICENSE*",
    "NOTICE*",
    "README.md",
]
SKIP = ["original/*", "onnx/*", "openvino/*", "consolidated*", "*/*"]

_REPOSITORY = re.compile(r"^[\w.\-]+/[\w.\-]+$")


class Source(Record):
    """A model on this disk and where it came from.

    `name` is what the user wrote, `revision` the commit for a Hub model, else None.
    """

    name: str
    path: Path
    revision: str | None = None


def resolve(model: str, *, offline: bool = False) -> Source:
    """Find a model, fetching it if it is on the Hub and not cached.

    Args:
        model: a folder, `demo:NAME`, or `owner/name[@revision]`.
        offline: use the cache only.

    Raises:
        UsageError: neither a folder nor a repository id.
        UnknownName: no such demo model.
        NeedsLogin: the repository is gated or private.
        SurgeonError: it does not exist, is not cached while offline, or the network fails.
    """
    if model.startswith("demo:"):
        return _demo(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return Source(name=model, path=path.resolve())
    repository, _, revision = model.partition("@")
    if path.is_absolute() or model.startswith((".", "~")) or not _REPOSITORY.match(repository):
        raise UsageError(
            f"no folder `{model}`",
            hint="give a folder, owner/name[@revision] on the Hub, or demo:planted",
        )
    return _fetch(model, repository, revision or None, offline)


def _demo(model: str) -> Source:
    name = model.removeprefix("demo:")
    if name not in DEMO_MODELS:
        raise UnknownName("demo model", name, DEMO_MODELS)
    return Source(name=model, path=DEMO / name)


def _fetch(model: str, repository: str, revision: str | None, offline: bool) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = offline or os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "ON", "YES")
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=FILES,
            ignore_patterns=SKIP,
            local_files_only=offline,
        )
    except GatedRepoError as error:
        raise NeedsLogin(
            f"`{repository}` is gated",
            hint=f"accept its terms on the Hub, then `hf auth login` ({repository})",
        ) from error
    except RevisionNotFoundError as error:
        raise SurgeonError(f"`{repository}` has no revision `{revision}`") from error
    except RepositoryNotFoundError as error:
        raise NeedsLogin(
            f"`{repository}` does not exist or is private, and `{model}` is not a folder",
            hint="check the name, or `hf auth login` if it is private",
        ) from error
    except LocalEntryNotFoundError as error:
        hint = "run once without --offline to fetch it" if offline else "check the network"
        raise SurgeonError(f"`{model}` is not in the cache and was not fetched", hint) from error
    except (HfHubHTTPError, OSError) as error:
        raise SurgeonError(f"fetching `{model}` failed: {error}") from error
    path = Path(folder)
    return Source(name=repository, path=path, revision=path.name)

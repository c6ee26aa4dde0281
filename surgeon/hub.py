"""Where a model comes from and where it goes: a folder, the bundled demo, or the Hub.

The only file that uses the network. Downloads are safetensors only; pickle is never asked
for. A revision is resolved to its commit once, and that commit is what gets recorded. An
upload is one commit; it is tried again a bounded number of times, what has arrived is not
sent twice, and afterwards the Hub is asked what it holds.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from surgeon.errors import NeedsLogin, SurgeonError, UnknownName, UsageError
from surgeon.record import Record

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

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

T = TypeVar("T")

_REPOSITORY = re.compile(r"^[\w.\-]+/[\w.\-]+$")


ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; doubled each time
TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)

Progress = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""


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

    Example:
        >>> import surgeon
        >>> surgeon.resolve("demo:planted").path.name
        'planted'

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


def _snapshot(repository: str, revision: str | None, offline: bool) -> Path:
    """The snapshot's folder; files that have arrived are not asked for again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _quietly():
                return Path(
                    snapshot_download(
                        repository,
                        revision=revision,
                        allow_patterns=FILES,
                        ignore_patterns=SKIP,
                        local_files_only=offline,
                    )
                )
        except HfHubHTTPError as error:
            if attempt == ATTEMPTS or _status(error) not in TRANSIENT:
                raise
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _fetch(model: str, repository: str, revision: str | None, offline: bool) -> Source:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES")
    try:
        path = _snapshot(repository, revision, offline)
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
        raise _not_cached(model, offline, error) from error
    except (_network_error(), OSError) as error:
        if isinstance(error, HfHubHTTPError) and _status(error) == 401:
            raise _token_refused() from error
        raise SurgeonError(f"fetching `{model}` failed: {_without_tokens(error)}") from None
    if not any(path.glob("*.safetensors")):
        raise SurgeonError(
            f"`{repository}` has no safetensors weights at its top level",
            hint="pickle is never loaded; look for a converted revision, such as @refs/pr/1",
        )
    return Source(name=repository, path=path, revision=path.name)


def _not_cached(model: str, offline: bool, error: BaseException) -> SurgeonError:
    """A snapshot that is neither cached nor to be had; the cause may still be the login."""
    if offline:
        return SurgeonError(
            f"`{model}` is not in the cache and was not fetched",
            hint="run once without --offline to fetch it",
        )
    cause = error.__cause__
    if cause is not None and _status(cause) in (401, 403):
        return _token_refused()
    why = f": {_without_tokens(cause)}" if cause is not None else ""
    return SurgeonError(
        f"`{model}` is not in the cache and was not fetched{why}", hint="check the network"
    )


class Uploaded(Record):
    """One commit on the Hub, as the Hub confirms it.

    `files` maps each name to its size in bytes; `pull_request` is the URL of the pull
    request, if one was opened; `attempts` is how often the upload was begun.
    """

    SCHEMA: ClassVar[str] = "surgeon.upload/1"

    repository: str
    url: str
    commit: str
    commit_url: str
    revision: str
    pull_request: str | None
    files: dict[str, int]
    attempts: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def upload(
    files: Mapping[str, Path | bytes],
    repository: str,
    *,
    message: str,
    private: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE,
    report: Progress = lambda stage, done, total: None,
) -> Uploaded:
    """Put files into a model repository as one commit, creating what is missing.

    Args:
        files: path in the repository to a file on this disk, or its bytes.
        repository: `owner/name`.
        message: of the commit, and title of the pull request.
        private: of a repository that is created; an existing one stays as it is.
        revision: branch to commit to, created if it is missing; None is the main one.
        pull_request: open one instead of committing to the main branch.
        token: None takes the one of the environment or of `hf auth login`.
        endpoint: of the Hub; None takes the one of the environment.
        attempts: how often the upload is begun at most.
        pause: seconds before the second attempt, doubled before each further one.
        report: progress callback.

    Raises:
        UsageError: not a repository id, or a pull request from a branch.
        NeedsLogin: no token, an expired one, or one that may not write there.
        SurgeonError: the Hub refuses, stays unreachable, or holds something else afterwards.
    """
    from huggingface_hub import HfApi

    if not _REPOSITORY.match(repository):
        raise UsageError(f"`{repository}` is not a repository id", hint="write owner/name")
    if pull_request and revision:
        raise UsageError("a pull request goes to the main branch", hint="drop the revision")
    secret = token or require_login()
    upload = _Upload(
        HfApi(endpoint=endpoint, token=secret), files, repository, message, revision, report
    )
    with _quietly():
        return upload.run(private, pull_request, attempts, pause)


def require_login() -> str:
    """The token of the environment or of `hf auth login`.

    Raises:
        NeedsLogin: there is none.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise NeedsLogin("pushing needs a login", hint="`hf auth login`, or set HF_TOKEN")
    return token


def is_logged_in() -> bool:
    """Whether there is a token; nothing is asked of the network."""
    from huggingface_hub import get_token

    return bool(get_token())


class _Upload:
    """One upload: each step may be repeated without doing its work twice."""

    def __init__(
        self,
        api: "HfApi",
        files: Mapping[str, Path | bytes],
        repository: str,
        message: str,
        revision: str | None,
        report: Progress,
    ):
        self.api, self.files, self.repository = api, files, repository
        self.message, self.revision, self.report = message, revision, report
        self.pull_request: str | None = None
        self.attempts = 0

    def run(self, private: bool, pull_request: bool, attempts: int, pause: float) -> Uploaded:
        self._again(lambda: self._create(private), attempts, pause)
        if pull_request:
            self._once(self._open_pull_request)
        commit = self._again(self._commit, attempts, pause)
        confirmed = self._again(lambda: self._confirm(commit), attempts, pause)
        if self.pull_request is not None:
            self._once(self._publish_pull_request)
        return confirmed

    def _again(self, step: Callable[[], T], attempts: int, pause: float) -> T:
        """Take a step until it succeeds, waiting longer each time."""
        for attempt in range(1, attempts + 1):
            try:
                return step()
            except (_network_error(), OSError, RuntimeError) as error:
                if attempt == attempts or not _is_transient(error):
                    raise self._explained(error) from None
                time.sleep(pause * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _once(self, step: Callable[[], None]) -> None:
        """Take a step that would leave two of something if it were repeated blindly."""
        try:
            step()
        except (_network_error(), OSError, RuntimeError) as error:
            raise self._explained(error) from None

    def _create(self, private: bool) -> None:
        self.api.create_repo(self.repository, private=private or None, exist_ok=True)
        if self.revision is not None:
            self.api.create_branch(self.repository, branch=self.revision, exist_ok=True)

    def _open_pull_request(self) -> None:
        made = self.api.create_pull_request(self.repository, title=self.message)
        self.pull_request, self.revision = made.url, made.git_reference

    def _publish_pull_request(self) -> None:
        """Pull requests are opened as drafts; this one is complete now."""
        number = int(str(self.pull_request).rsplit("/", 1)[-1])
        self.api.change_discussion_status(self.repository, number, "open")

    def _commit(self) -> "CommitInfo":
        from huggingface_hub import CommitOperationAdd

        self.attempts += 1
        self.report(f"upload, attempt {self.attempts}", 0, len(self.files))
        # The Hub tells which files it has already, so a second attempt sends the rest; and
        # where only the answer was lost, nothing is left to commit and none is made.
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in self.files.items()
        ]
        try:
            made = self.api.create_commit(
                self.repository,
                operations,
                commit_message=self.message,
                revision=self.revision,
                num_threads=2,
            )
        except ValueError as error:
            if isinstance(error, OSError):  # an HTTP error that is also a ValueError
                raise
            raise SurgeonError(f"the Hub refuses the files: {self._scrubbed(error)}") from None
        self.report(f"upload, attempt {self.attempts}", len(self.files), len(self.files))
        return made

    def _confirm(self, commit: "CommitInfo") -> Uploaded:
        info = self.api.model_info(self.repository, revision=commit.oid, files_metadata=True)
        there = {each.rfilename: each.size for each in info.siblings or []}
        sizes = {name: _size(content) for name, content in self.files.items()}
        for name, size in sizes.items():
            if there.get(name) != size:
                raise SurgeonError(
                    f"`{self.repository}` has `{name}` with {there.get(name)} bytes, sent {size}"
                )
        return Uploaded(
            repository=self.repository,
            url=f"{self.api.endpoint}/{self.repository}",
            commit=commit.oid,
            commit_url=commit.commit_url,
            revision=self.revision or "main",
            pull_request=self.pull_request,
            files=sizes,
            attempts=self.attempts,
        )

    def _scrubbed(self, error: BaseException) -> str:
        return _without_tokens(error, str(self.api.token))

    def _explained(self, error: BaseException) -> SurgeonError:
        """What the user can do about a failed upload, without the token."""
        status, text = _status(error), self._scrubbed(error)
        if status == 401:
            return _token_refused()
        if status == 403 or "gated" in text.lower():
            return NeedsLogin(
                f"this login may not write to `{self.repository}`",
                hint="use a token with write access to that owner: `hf auth login`",
            )
        return SurgeonError(
            f"uploading to `{self.repository}` failed: {text}",
            hint="the same command goes on where it stopped",
        )


def _token_refused() -> NeedsLogin:
    return NeedsLogin(
        "the Hub does not accept the token", hint="it may be expired or revoked: `hf auth login`"
    )


def _network_error() -> type[BaseException]:
    """The HTTP library's base error: its name differs between versions of huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _status(error: BaseException) -> int | None:
    """HTTP status of an error or of what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__
    return None


def _is_transient(error: BaseException) -> bool:
    """Whether trying again may help: a busy or broken server, or a lost connection."""
    status = _status(error)
    return status in TRANSIENT if status is not None else not isinstance(error, FileNotFoundError)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _without_tokens(error: BaseException, *secrets: str) -> str:
    """An error's text with every token, and every URL's query, in it replaced.

    The query of an upload's URL may be a signature that lets its reader write there.
    """
    text = str(error) if error.__cause__ is None else f"{error} {error.__cause__}"
    for secret in secrets:
        text = text.replace(secret, "***")
    text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1?***", text)
    return re.sub(r"\bhf_[A-Za-z0-9]{8,}", "***", text).strip()


@contextmanager
def _quietly() -> Iterator[None]:
    """The client library without its log, and without bars where nobody sees them move.

    Its warnings quote whole URLs, which may be signed; what matters of them is in our errors.
    """
    from huggingface_hub.utils import logging as client_log
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    level, hide = client_log.get_verbosity(), not sys.stderr.isatty()
    hide = hide and not are_progress_bars_disabled()
    client_log.set_verbosity(logging.ERROR)
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        client_log.set_verbosity(level)
        if hide:
            enable_progress_bars()

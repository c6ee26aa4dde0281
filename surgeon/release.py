"""`push`: a finished checkpoint to the Hub, verified first, with its card, once its verdict fits.

What goes up is what the manifest lists, the manifest itself and the card; anything else in
the folder stays here.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from surgeon.checkpoint.manifest import MANIFEST_NAME, Manifest, read_manifest
from surgeon.errors import Refused, SurgeonError, UsageError
from surgeon.evals.result import CheckResult
from surgeon.hub import Progress, require_login, upload
from surgeon.outcome import Outcome, Pushed
from surgeon.report.card import (
    CARD_NAME,
    CardFacts,
    folder_facts,
    is_as_written,
    render_card,
    run_facts,
)
from surgeon.report.records import read_run
from surgeon.verification.result import Verification

REFUSED = ("worse", "undecided", "unknown")


@dataclass(frozen=True)
class Parcel:
    """A checkpoint with what is known of it; `base` is its source where that is still here."""

    folder: Path
    manifest: Manifest
    facts: CardFacts
    base: Path | None = None

    @property
    def verdict(self) -> str:
        """Of its check, or `unknown`."""
        return self.facts.check.verdict.verdict if self.facts.check else "unknown"

    def files(self, repository: str) -> dict[str, Path | bytes]:
        """Everything that goes up; a card that someone edited goes up as it is."""
        listed = [file.name for file in self.manifest.files if file.name != CARD_NAME]
        files: dict[str, Path | bytes] = {name: self.folder / name for name in listed}
        files[MANIFEST_NAME] = self.folder / MANIFEST_NAME
        here = self.folder / CARD_NAME
        edited = here.is_file() and not is_as_written(here.read_text(encoding="utf-8"))
        files[CARD_NAME] = here if edited else render_card(self.facts, repository).encode()
        return files


def push(
    folder: Path,
    repository: str,
    *,
    check: CheckResult | None = None,
    private: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    allow_verdict: bool = False,
    dry_run: bool = False,
    report: Progress = lambda stage, done, total: None,
) -> Pushed:
    """Verify a checkpoint and upload it with its card.

    Args:
        folder: a run folder, or a checkpoint this tool wrote; one in a run folder is taken
            with that run's check.
        repository: `owner/name` on the Hub.
        check: of the checkpoint, where no run folder holds one.
        private: of a repository that is created.
        revision: branch to commit to.
        pull_request: open one instead of committing.
        allow_verdict: also push what is `worse`, `undecided` or was never checked.
        dry_run: do everything but the upload.
        report: progress callback.

    Example:
        >>> import surgeon
        >>> from pathlib import Path
        >>> surgeon.push(Path("runs/demo"), "me/upgraded", dry_run=True).verdict
        'improved'

    Raises:
        UsageError: no checkpoint of this tool, or a check of another one.
        Refused: the verdict does not allow it.
        NeedsLogin: no token, or one that may not write there.
        SurgeonError: verification failed, or the upload did.
    """
    parcel = find_parcel(folder, check)
    if parcel.verdict in REFUSED and not allow_verdict:
        raise _not_pushed(parcel)
    if not dry_run:
        require_login()
    report("verify", 0, 1)
    verified = verify_apart(parcel.folder, parcel.base)
    report("verify", 1, 1)
    files = parcel.files(repository)
    made = None
    if not dry_run:
        made = upload(
            files,
            repository,
            message=f"Add {parcel.facts.base} with {parcel.manifest.plan}",
            private=private,
            revision=revision,
            pull_request=pull_request,
            report=report,
        )
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    return Pushed(
        folder=parcel.folder,
        repository=repository,
        verdict=parcel.verdict,
        verified=verified.summary,
        files=sizes,
        upload=made,
    )


def find_parcel(folder: Path, check: CheckResult | None = None) -> Parcel:
    """The checkpoint in `folder`, with the check that belongs to it.

    Raises:
        UsageError: no checkpoint of this tool is there, or the check is of another one.
    """
    if (folder / "run.json").is_file():
        model, run = folder / "model", folder
    else:
        model, run = folder, folder.parent
    if (run / "run.json").is_file() and _is_model_of(run, model):
        records = read_run(run)
        facts, source = run_facts(records), records.outcome.source.path
        if records.manifest != read_manifest(model):
            raise UsageError(f"`{model}` is not the checkpoint that the run in `{run}` checked")
    else:
        facts, source = folder_facts(model), None
    if check is not None:
        facts = _with_check(facts, check, model)
    base = source if source and source.is_dir() else None
    return Parcel(model, facts.manifest, facts, base)


def _is_model_of(run: Path, model: Path) -> bool:
    """Whether the folder is the model of the run: by its place, wherever both were moved."""
    plan = Outcome.from_dict(json.loads((run / "run.json").read_text(encoding="utf-8"))).plan
    if plan is None and model.parent == run and model.name == "model" and not model.exists():
        raise UsageError(f"the run in `{run}` saved no model", hint="see its report.html for why")
    return plan is not None and model.resolve() == (run / "model").resolve()


def _with_check(facts: CardFacts, check: CheckResult, model: Path) -> CardFacts:
    plan = str(facts.manifest.plan)
    if check.plan is not None and check.plan != plan:
        raise UsageError(f"the check is of plan `{check.plan}`, `{model}` is `{plan}`")
    if check.plan is None and Path(check.candidate).name != model.resolve().name:
        raise UsageError(f"the check is of `{check.candidate}`, not of `{model}`")
    return replace(facts, check=check)


def _not_pushed(parcel: Parcel) -> Refused:
    if parcel.verdict == "unknown":
        return Refused(
            f"`{parcel.folder}` was never checked against its base",
            hint="surgeon check BASE DIR --json > check.json, then --check check.json; "
            "or --allow-verdict",
        )
    return Refused(
        f"the verdict on `{parcel.folder}` is {parcel.verdict}",
        hint="--allow-verdict pushes it all the same, with that verdict on the card",
    )


def verify_apart(folder: Path, base: Path | None) -> Verification:
    """Verify in a process of its own: it needs torch, and the upload needs little memory.

    Raises:
        SurgeonError: a check failed, or the folder holds no checkpoint.
    """
    against = ["--base", str(base)] if base else []
    done = subprocess.run(
        [sys.executable, "-m", "surgeon", "verify", str(folder), "--json", *against],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        found = Verification.from_dict(json.loads(done.stdout))
    except (ValueError, UsageError) as error:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise SurgeonError(f"`{folder}` could not be verified: {last[0]}") from error
    if not found.passed:
        first = found.failures[0]
        raise SurgeonError(f"`{folder}` failed verification: {first.name}: {first.detail}")
    return found

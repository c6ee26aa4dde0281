"""`verify`: every check of a written checkpoint, each on its own, none trusting another.

The files are read again with two parsers, digested again and compared with the manifest and
with the base model's bytes; both configs are built and compared layer by layer; the loader is
asked which keys it missed; with `logits`, the loaded result must compute what the plan
computes in memory, with and without a cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from surgeon.checkpoint.config import spelled_out
from surgeon.checkpoint.manifest import Manifest, read_manifest
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan
from surgeon.verification.files import check_digests, check_files, check_tensors
from surgeon.verification.result import Check, Verification


@dataclass(frozen=True)
class Subject:
    """What is being verified: the folder, and the base model if it is there."""

    checkpoint: Checkpoint
    manifest: Manifest | None
    base: Checkpoint | None
    plan: LayerPlan | None


Question = Callable[[Subject], str]


class NotMeasured(SurgeonError):
    """A check that could not be made; says why."""


def verify(
    folder: Path | str, *, base: Path | str | None = None, logits: bool = False, strict: bool = True
) -> Verification:
    """Verify a checkpoint.

    Args:
        folder: the checkpoint, with or without a manifest.
        base: the model it was made from; needed for structure, bytes and logits.
        logits: load both models and compare logits (memory for both in float32).
        strict: raise on a failed check.

    Example:
        >>> import surgeon
        >>> base = surgeon.resolve("demo:planted").path
        >>> surgeon.verify("runs/demo/model", base=base, logits=True).summary
        'passed: files, digests, tensors, structure, keys, logits'

    Raises:
        SurgeonError: the folder holds no readable checkpoint, or, with `strict`, a check failed.
    """
    subject = _subject(folder, base)
    questions: list[tuple[str, Question]] = [
        ("files", lambda s: check_files(s.checkpoint)),
        ("digests", _digests),
        ("tensors", _tensors),
        ("structure", _structure),
        ("keys", _keys),
    ]
    if logits:
        questions.append(("logits", _logits))
    found = Verification(
        folder=Path(folder).resolve().name,
        source=subject.manifest.source.id if subject.manifest else None,
        plan=subject.plan,
        checks=[_ask(name, question, subject) for name, question in questions],
    )
    if strict and not found.passed:
        first = found.failures[0]
        raise SurgeonError(f"`{folder}` failed verification: {first.name}: {first.detail}")
    return found


def _subject(folder: Path | str, base: Path | str | None) -> Subject:
    """Open both checkpoints and find the plan between them."""
    checkpoint, manifest = Checkpoint.open(Path(folder)), read_manifest(Path(folder))
    source = Checkpoint.open(Path(base)) if base else None
    if manifest and source and manifest.mtp_dropped:
        source = source.without_prediction()
    plan = manifest.plan if manifest else None
    # A base further up the line: the manifest also has the plan from the beginning.
    if manifest and source and manifest.root_plan and plan and plan.depth != source.depth:
        plan = manifest.root_plan
    return Subject(checkpoint, manifest, source, plan)


def _ask(name: str, question: Question, subject: Subject) -> Check:
    """One answer, whatever happens."""
    try:
        return Check(name=name, state="passed", detail=question(subject))
    except NotMeasured as error:
        return Check(name=name, state="not measured", detail=str(error))
    except SurgeonError as error:
        return Check(name=name, state="failed", detail=str(error))


def _digests(subject: Subject) -> str:
    if subject.manifest is None:
        raise NotMeasured("the folder has no manifest")
    return check_digests(subject.checkpoint, subject.manifest)


def _with_base(subject: Subject) -> tuple[Checkpoint, LayerPlan]:
    if subject.base is None:
        raise NotMeasured("no base model was given")
    if subject.plan is None:
        raise NotMeasured("the folder has no manifest, so its plan is not known")
    if subject.plan.depth != subject.base.depth:
        raise SurgeonError(
            f"the plan is for {subject.plan.depth} layers, the base has {subject.base.depth}"
        )
    return subject.base, subject.plan


def _tensors(subject: Subject) -> str:
    if subject.base is None and subject.manifest and subject.manifest.tensors and subject.plan:
        return check_tensors(subject.checkpoint, subject.manifest.plan, subject.manifest.tensors)
    base, plan = _with_base(subject)
    return check_tensors(subject.checkpoint, plan, base)


def _structure(subject: Subject) -> str:
    base, plan = _with_base(subject)
    from surgeon.verification.structure import check_structure

    before = spelled_out(base.config, plan.depth)
    return check_structure(before, subject.checkpoint.config, plan)


def _keys(subject: Subject) -> str:
    from surgeon.verification.loading import check_keys

    if subject.checkpoint.is_quantised:
        raise NotMeasured("loading a quantised model needs its kernels")
    return check_keys(subject.checkpoint, subject.base, subject.plan)


def _logits(subject: Subject) -> str:
    base, plan = _with_base(subject)
    from surgeon.verification.loading import check_logits

    if subject.checkpoint.is_quantised:
        raise NotMeasured("loading a quantised model needs its kernels")
    return check_logits(subject.checkpoint, base, plan)

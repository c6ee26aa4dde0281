"""`duplicate`: write the checkpoint that a layer plan makes of another one.

Everything that can be refused is refused before the first byte: size class, family, plan,
config, output path, disk space. The bytes then go to a hidden folder beside OUT while the
structural verifier looks at the two configs; OUT appears when both are done.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.checkpoint import ancillary, copying, digest, disk
from surgeon.checkpoint.config import rewrite_config, spelled_out
from surgeon.checkpoint.copying import Link, OnBytes
from surgeon.checkpoint.gate import Gate, Verifier
from surgeon.checkpoint.guard import refuse_large
from surgeon.checkpoint.index import INDEX_NAME, encode_index
from surgeon.checkpoint.layout import OutputFile, lay_out
from surgeon.checkpoint.manifest import (
    MANIFEST_NAME,
    File,
    Manifest,
    Source,
    edits,
    encode_json,
    read_manifest,
    versions,
)
from surgeon.checkpoint.publish import Staging, refuse_output, staging, staging_path, write_file
from surgeon.checkpoint.quantization import expand_settings
from surgeon.checkpoint.store import Checkpoint, read_small
from surgeon.checkpoint.strict_json import parse_object
from surgeon.errors import NoSpace, SurgeonError, UsageError
from surgeon.plan import LayerPlan

QUANTISATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_MARGIN = 64 << 20  # bytes left free beside the exact need


def _nothing(done: int) -> None:
    """No progress is wanted."""


@dataclass(frozen=True)
class _Job:
    """What is to be written, known completely before anything is.

    Args:
        source: what is copied from; without its prediction tensors where these are dropped.
        given: config.json of the source as it is in the file.
        plan: which source layer runs at each position.
        config: of the result.
        outputs: weight files.
        small: other files by name, with their bytes.
        others: files that travel as they are, and files that do not.
    """

    source: Checkpoint
    given: dict[str, Any]
    plan: LayerPlan
    config: dict[str, Any]
    outputs: list[OutputFile]
    small: Mapping[str, bytes]
    others: ancillary.Ancillary

    @property
    def nbytes(self) -> int:
        """Of everything but the manifest."""
        carried = (self.source.path / name for name in self.others.carried)
        return (
            sum(output.size for output in self.outputs)
            + sum(len(data) for data in self.small.values())
            + sum(path.stat().st_size for path in carried)
        )

    @property
    def mtp_dropped(self) -> bool:
        """Whether prediction tensors stay behind."""
        return self.source.config is not self.given

    @property
    def key(self) -> str:
        """Digest of the inputs and the layout; equal for runs that write the same."""
        inputs = hashlib.sha256(str((self.plan.depth, self.plan.layers)).encode())
        inputs.update(digest.ALGORITHM.encode())
        inputs.update(json.dumps(self.source.stamps(), sort_keys=True).encode())
        inputs.update(self.small["config.json"])
        for output in self.outputs:
            inputs.update(output.name.encode() + output.header)
        return inputs.hexdigest()


def duplicate(
    source: Checkpoint,
    plan: LayerPlan,
    out: Path | str,
    *,
    force: bool = False,
    dry_run: bool = False,
    drop_mtp: bool = False,
    link: Link = "auto",
    verifier: Verifier | None = None,
    on_warning: Callable[[str], None] | None = None,
    on_bytes: OnBytes | None = None,
) -> Manifest:
    """Write the checkpoint that `plan` makes of `source` to the folder `out`.

    Args:
        source: opened checkpoint.
        plan: for its depth.
        out: folder to make; its parent must exist.
        force: replace an existing model folder, once the new one is complete.
        dry_run: do everything but touch the disk.
        drop_mtp: leave multi-token-prediction (MTP) tensors behind, and say so in the config.
        link: `auto` clones blocks where the filesystem can and copies otherwise; `reflink`
            insists on cloning; `copy` never clones; `hard` links files that stay identical
            (a later change in place would change the source too).
        verifier: structural verifier to call in this process; None starts a child process,
            so that this one needs no torch.
        on_warning: receives warnings.
        on_bytes: receives the size of each finished step.

    Returns:
        The manifest, as written to `surgeon.json`.

    Example:
        >>> import surgeon
        >>> base = surgeon.Checkpoint.open(surgeon.resolve("demo:planted").path)
        >>> plan = surgeon.LayerPlan.duplicate(base.depth, surgeon.Block.parse("4:8"))
        >>> made = surgeon.duplicate(base, plan, "upgraded")
        >>> str(made.plan), [edit.key for edit in made.edits]
        (':8,4:', ['num_hidden_layers'])

    Raises:
        Refused: by a guard, before anything is written.
        UsageError: the plan is for another depth, or there is no MTP tensor to drop.
        SurgeonError: reading or writing failed; OUT is as it was before.
    """
    if plan.depth != source.depth:
        raise UsageError(f"the plan is for {plan.depth} layers, the model has {source.depth}")
    out = Path(out)
    warn = on_warning or (lambda text: None)
    for warning in refuse_large(source):
        warn(warning)
    refuse_output(source.path, out, force)
    whole = source
    if drop_mtp:
        source = source.without_prediction()
        if source.by_name.keys() == whole.by_name.keys():
            raise UsageError(f"`{source.path}` has no multi-token-prediction tensors to drop")
    gate: Gate | None = None
    try:
        with _system_errors(out):
            job = _prepare(source, whole.config, plan, clone=False)
            if dry_run or link in ("copy", "hard") or not _may_clone(source, out):
                _require_space(job, out)
            gate = Gate(spelled_out(whole.config, plan.depth), job.config, plan, verifier)
            if dry_run:
                return _manifest(job, out, {}, [gate.wait()])
            return _write(job, out, link, gate, on_bytes or _nothing)
    finally:
        if gate:
            gate.close()


@contextmanager
def _system_errors(out: Path) -> Iterator[None]:
    """Turn what the system reports into the tool's errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"the disk is full; nothing was published at `{out}`",
                hint="free some space and run the same command again",
            ) from error
        raise SurgeonError(
            f"writing `{out}` failed: {error.strerror or error}; nothing was published"
        ) from error


def _prepare(source: Checkpoint, given: dict[str, Any], plan: LayerPlan, *, clone: bool) -> _Job:
    """Config, layout and small files of the result."""
    config = rewrite_config(source.config, plan, prefix=source.stack.prefix)
    outputs = lay_out(source, plan, clone=clone)
    others = ancillary.judge(source.path, source.config, set(source.files))
    small = dict(_quantisation_files(source, plan, others))
    if len(outputs) > 1:
        entries = [(item.entry, output.name) for output in outputs for item in output.placed]
        small[INDEX_NAME] = encode_index(
            {entry.name: name for entry, name in entries},
            sum(entry.nbytes for entry, _ in entries),
            sum(entry.numel for entry, _ in entries),
        )
    small["config.json"] = encode_json(config)
    return _Job(source, given, plan, config, outputs, small, others)


def _quantisation_files(
    source: Checkpoint, plan: LayerPlan, others: ancillary.Ancillary
) -> Iterator[tuple[str, bytes]]:
    """Settings of quantised models outside config.json, with layers renumbered."""
    for name in set(QUANTISATION_FILES) & set(others.carried):
        raw = read_small(source.path / name, 16_000_000)
        settings = parse_object(raw, f"`{name}`", limit=16_000_000)
        expanded = expand_settings(settings, plan, source.stack.prefix)
        yield name, raw if expanded == settings else encode_json(expanded)


def _may_clone(source: Checkpoint, out: Path) -> bool:
    """Whether source and OUT share a filesystem, so that blocks may not be needed twice."""
    device = out.parent.stat().st_dev
    return all(header.path.stat().st_dev == device for header in source.headers.values())


def _require_space(job: _Job, out: Path) -> None:
    """Refuse if the exact size does not fit; what an earlier run left there counts."""
    left = staging_path(out)
    written = sum(path.stat().st_size for path in left.iterdir()) if left.is_dir() else 0
    need = max(0, job.nbytes - written) + job.nbytes // 100 + _MARGIN
    free = disk.free_bytes(out.parent)
    if free < need:
        raise NoSpace(
            f"`{out}` needs {need:,} bytes, the disk has {free:,} free",
            hint="free some space, or write to another disk",
        )


def _write(job: _Job, out: Path, link: Link, gate: Gate, on_bytes: OnBytes) -> Manifest:
    """Fill the hidden folder, wait for the verifier, publish."""

    def step(done: int) -> None:
        gate.poll()
        on_bytes(done)

    with ExitStack() as stack:
        sources = _open_sources(job.source, stack)
        stage = stack.enter_context(staging(out, job.key))
        clone = link in ("auto", "reflink") and _clones(sources, stage.path)
        if link == "reflink" and not clone:
            raise SurgeonError(
                f"the filesystem of `{out}` cannot share blocks with `{job.source.path}`",
                hint="use --link auto or --link copy",
            )
        if clone:
            job = _prepare(job.source, job.given, job.plan, clone=True)
        else:
            _require_space(job, out)
        facts = _write_weights(job, stage, sources, link, clone, step)
        _write_small(job, stage)
        checks = [gate.wait(), _check_result(job, stage.path)]
        _require_unchanged(job.source)
        manifest = _manifest(job, out, facts, checks)
        write_file(stage.path / MANIFEST_NAME, encode_json(manifest.to_dict()))
        stage.publish()
    return manifest


def _open_sources(source: Checkpoint, stack: ExitStack) -> dict[str, int]:
    """A descriptor for each source file, closed with the stack."""
    handles = {}
    for name, header in source.headers.items():
        handles[name] = os.open(header.path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, handles[name])
    return handles


def _clones(sources: Mapping[str, int], folder: Path) -> bool:
    return all(copying.can_clone(handle, folder) for handle in sources.values())


def _write_weights(
    job: _Job,
    stage: Staging,
    sources: Mapping[str, int],
    link: Link,
    clone: bool,
    step: OnBytes,
) -> dict[str, dict[str, Any]]:
    """Every safetensors file; files that an earlier run finished are taken as they are."""
    facts: dict[str, dict[str, Any]] = {}
    known: dict[str, str] = {}
    for output in job.outputs:
        found = stage.finished(output.name, output.size)
        if found is None:
            target = stage.path / output.name
            disk.remove_file(target)
            if link == "hard" and _is_identical(job.source, output):
                disk.link(job.source.path / output.placed[0].file, target)
                written = copying.Digests()
            else:
                written = copying.write_output(
                    output, target, sources, clone=clone, known=known, on_bytes=step
                )
            found = {"digest": written.file, "tensors": written.tensors}
            stage.record(output.name, found)
        facts[output.name] = found
        known.update(found["tensors"])
    return facts


def _is_identical(source: Checkpoint, output: OutputFile) -> bool:
    """Whether an output file equals one source file byte for byte."""
    files = {item.file for item in output.placed}
    if len(files) != 1:
        return False
    header = source.headers[files.pop()]
    with header.path.open("rb") as file:
        return output.copy_of(header, file.read(header.payload))


def _write_small(job: _Job, stage: Staging) -> None:
    """Carried files, then the index, then config.json: an open folder never looks loadable."""
    for name in job.others.carried:
        if name not in job.small:
            _carry(job.source.path / name, stage.path / name)
    for name in sorted(job.small, key=lambda name: name == "config.json"):
        write_file(stage.path / name, job.small[name])


def _carry(source: Path, target: Path) -> None:
    """Copy one small file in pieces."""
    handle = disk.create(target)
    try:
        at = 0
        with source.open("rb") as file:
            while chunk := file.read(disk.BUFFER):
                disk.write(handle, chunk, at)
                at += len(chunk)
        disk.sync(handle)
    finally:
        os.close(handle)


def _check_result(job: _Job, folder: Path) -> str:
    """Open the written folder like any foreign checkpoint and compare it with the layout."""
    written = Checkpoint.open(folder)
    expected = {item.entry.name: item.entry for output in job.outputs for item in output.placed}
    if written.by_name != expected or written.depth != len(job.plan):
        raise SurgeonError("the written files do not hold what was laid out; nothing was published")
    return f"headers: {len(expected)} tensors as laid out"


def _require_unchanged(source: Checkpoint) -> None:
    """Refuse to publish if an input changed since it was opened."""
    changed = [name for name, stamp in source.stamps().items() if source.opened[name] != stamp]
    if changed:
        raise SurgeonError(
            f"`{source.path / changed[0]}` changed while it was read; nothing was published"
        )


def _manifest(
    job: _Job, out: Path, facts: Mapping[str, dict[str, Any]], checks: list[str]
) -> Manifest:
    """The manifest of the result, composed with the source's own where it has one."""
    origin = job.source.origin
    own = Source(id=origin.id, revision=origin.revision, files=job.source.identity())
    earlier = read_manifest(job.source.path)
    root = (earlier.root or earlier.source) if earlier else None
    root_plan = (earlier.root_plan or earlier.plan).then(job.plan) if earlier else None
    name = f"{origin.id}@{origin.revision}" if origin.revision else origin.id
    files = [
        File(name=output.name, size=output.size, digest=facts.get(output.name, {}).get("digest"))
        for output in job.outputs
    ]
    for small, data in job.small.items():
        files.append(File(name=small, size=len(data), digest=digest.of_bytes(data)))
    for carried in job.others.carried:
        if carried not in job.small:
            path = job.source.path / carried
            size = path.stat().st_size
            files.append(File(name=carried, size=size, digest=digest.of_range(path)))
    tensors = {key: value for fact in facts.values() for key, value in fact["tensors"].items()}
    return Manifest(
        source=own,
        plan=job.plan,
        mtp_dropped=job.mtp_dropped or bool(earlier and earlier.mtp_dropped),
        root=root,
        root_plan=root_plan,
        edits=edits(job.given, job.config),
        files=files,
        tensors=dict(sorted(tensors.items())),
        carried=list(job.others.carried),
        left=list(job.others.left),
        checks=checks,
        rebuild=f"surgeon duplicate {name} {out.name} --layers '{job.plan}'"
        + (" --drop-mtp" if job.mtp_dropped else ""),
        versions=versions(),
    )

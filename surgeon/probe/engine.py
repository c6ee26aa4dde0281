"""`probe`: model and prompts -> statistics -> rankings, in one call.

Reads the model, never writes; keeps no activations but means over positions.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from surgeon.block import Block
from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UsageError
from surgeon.models import (
    Choice,
    choose_device,
    choose_dtype,
    decoder_layers,
    load_config,
    load_model,
    load_tokenizer,
    stored_dtype,
)
from surgeon.probe.capture import Captured, Runner, keeps_apart, owner_of
from surgeon.probe.jvp import sensitivities
from surgeon.probe.pack import group, pack
from surgeon.probe.passes import SecondPass
from surgeon.probe.plans import compare_predictions, run_candidates
from surgeon.probe.prompts import Prompts, load_prompts
from surgeon.probe.stream import CannotStream, Skeleton
from surgeon.probe.sweep import Layers, Loaded, Report, sweep
from surgeon.probe.tokens import MAX_TOKENS, encode
from surgeon.record import Record
from surgeon.score import CIRCUITPROBE, Evidence, Ranking, Scorer, get_scorer, rank
from surgeon.score.base import candidate_blocks
from surgeon.stats import LayerStats, PromptMeans

DEFAULT_SCORERS = ("stability", "anomaly", "decisiveness", "consensus")

ROW_TOKENS = 1024
"""Tokens per packed row: enough to keep matrix products at full speed, few enough that
the masked part of attention, which grows with the square of it, stays a small share."""


class Chosen(Record):
    """A device or dtype and why."""

    value: str
    reason: str


class ModelIdentity(Record):
    """Which model was probed."""

    path: str
    model_type: str
    depth: int
    width: int
    config_digest: str


class PromptsIdentity(Record):
    """Which prompts it was probed with."""

    name: str
    origin: str
    digest: str
    count: int


class ProbeResult(Record):
    """What a probe found; `rankings` is in the order of the scorers asked for."""

    SCHEMA: ClassVar[str] = "surgeon.probe/1"

    model: ModelIdentity
    prompts: PromptsIdentity
    tokens: int
    sizes: tuple[int, ...]
    device: Chosen
    dtype: Chosen
    seed: int
    compat: str | None
    stats: LayerStats
    rankings: tuple[Ranking, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def ranking(self, scorer: str) -> Ranking:
        """The ranking of one scorer.

        Raises:
            UsageError: it was not among the scorers of this probe.
        """
        for ranking in self.rankings:
            if ranking.scorer == scorer:
                return ranking
        known = ", ".join(ranking.scorer for ranking in self.rankings)
        raise UsageError(f"scorer `{scorer}` was not run by this probe; run: {known}")


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is ready to be probed, with its prompts as batches."""

    runner: Runner
    layers: Layers
    batches: list[Captured]
    notes: list[str]


def _silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""


def probe(
    model: Path | str,
    prompts: Prompts,
    *,
    scorers: Sequence[str] = DEFAULT_SCORERS,
    sizes: Sequence[int] = (3, 4, 5),
    device: str | Choice = "auto",
    dtype: str | Choice = "auto",
    seed: int = 0,
    compat: bool = False,
    max_tokens: int = MAX_TOKENS,
    report: Report = _silent,
) -> ProbeResult:
    """Probe a model folder and rank its blocks.

    Args:
        model: a folder with config.json, safetensors and a tokenizer.
        prompts: calibration prompts; for label-free scorers they end where an answer is due.
        scorers: names of `surgeon.score.SCORERS`.
        sizes: block sizes in layers.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, or a choice made before.
        dtype: `auto` (the checkpoint's), a name, or a choice made before.
        seed: of the scorers that draw random numbers.
        compat: rank exactly as the released CircuitProbe program does.
        max_tokens: longer prompts are cut.
        report: progress callback `(stage, done, total)`.

    Raises:
        UnknownName: an unknown scorer.
        UsageError: sizes, device, dtype or prompts do not fit.
        UnsupportedModel: not a decoder stack that can be run layer by layer.
        SurgeonError: loading fails, or activations are NaN or infinite.
    """
    started = time.monotonic()
    folder = Path(model)
    checkpoint = Checkpoint.open(folder)
    chosen = [get_scorer(name) for name in scorers]
    if not chosen:
        raise UsageError("no scorer was asked for")
    config = load_config(folder)
    text = config.get_text_config(decoder=True)
    blocks = candidate_blocks(text.num_hidden_layers, sizes)
    device = choose_device(device) if isinstance(device, str) else device
    if isinstance(dtype, str):
        dtype = choose_dtype(dtype, stored_dtype(config.to_dict()), device.value)
    ids, notes = encode(load_tokenizer(folder), prompts.texts, max_tokens=max_tokens)
    head = any(scorer.needs in ("plans", "jacobians") for scorer in chosen)
    subject = open_model(checkpoint, ids, device.value, dtype.value, head=head)
    means = sweep(subject.layers, subject.batches, report=report)
    evidence = gather(subject, means, chosen, blocks, prompts.texts, seed, report)
    mode = CIRCUITPROBE if compat else None
    assert evidence.layers is not None
    return ProbeResult(
        model=_identity(folder, text.num_hidden_layers, text.hidden_size, config.model_type),
        prompts=PromptsIdentity(
            name=prompts.name,
            origin=prompts.origin,
            digest=prompts.digest,
            count=len(prompts.texts),
        ),
        tokens=sum(map(len, ids)),
        sizes=tuple(sizes),
        device=Chosen(value=device.value, reason=device.reason),
        dtype=Chosen(value=dtype.value, reason=dtype.reason),
        seed=seed,
        compat=mode,
        stats=evidence.layers,
        rankings=tuple(rank(evidence, scorer, sizes, mode) for scorer in chosen),
        seconds=time.monotonic() - started,
        notes=(*notes, *subject.notes),
    )


def open_model(
    checkpoint: Checkpoint,
    ids: Sequence[Sequence[int]],
    device: str,
    dtype: str,
    *,
    head: bool = True,
    attention: str | None = None,
) -> Subject:
    """Bring the prompts to a model's first layer, its layers to be streamed from the files.

    Args:
        checkpoint: the opened model folder.
        ids: token ids of each prompt.
        device: where to compute.
        dtype: a name of `DTYPES`.
        head: also make next-token logits possible.
        attention: attention implementation, or None for the library's choice.

    Returns:
        The model in layers; where streaming would be wrong the whole model is loaded, and
        the notes say why.
    """
    try:
        skeleton = Skeleton(checkpoint, dtype, device, attention)
        skeleton.fill_around(torch.tensor([token for row in ids for token in row]))
        if head:
            skeleton.fill_head()
    except CannotStream as reason:
        model = load_model(checkpoint.path, device=device, dtype=dtype, attention=attention)
        path, stack = decoder_layers(model)
        layers: Layers = Loaded(list(stack))
        why = [f"the whole model is in memory: {reason}"]
    else:
        model, path, layers, why = skeleton.model, skeleton.path, skeleton.layers(), []
    runner = Runner(model, owner_of(model, path), list(decoder_layers(model)[1]))
    batches, notes = arrange(runner, ids, device)
    return Subject(runner, layers, batches, [*why, *notes])


def arrange(
    runner: Runner, ids: Sequence[Sequence[int]], device: str
) -> tuple[list[Captured], list[str]]:
    """The prompts packed into rows if the model's masks keep them apart, else by length."""
    captured = []
    for batch in pack(ids, ROW_TOKENS, device):
        item = runner.capture(batch)
        if batch.packed and not keeps_apart(item):
            name = type(runner.model).__name__
            captured = [runner.capture(batch) for batch in group(ids, ROW_TOKENS, device)]
            return captured, [
                f"{name} cannot keep packed prompts apart: batched by equal length instead"
            ]
        captured.append(item)
    return captured, []


def gather(
    subject: Subject,
    means: PromptMeans,
    scorers: Sequence[Scorer],
    blocks: Sequence[Block],
    texts: Sequence[str],
    seed: int,
    report: Report,
) -> Evidence:
    """Measure what the scorers need beyond the layer statistics."""
    evidence = Evidence(layers=means.layer_stats())
    needs = {scorer.needs for scorer in scorers}
    if needs & {"plans", "passes"}:
        watch, plans = SecondPass(), "plans" in needs
        finals = run_candidates(
            subject.layers,
            subject.batches,
            blocks,
            watch=watch if "passes" in needs else None,
            to_the_end=plans,
            report=report,
        )
        if plans:
            found = compare_predictions(subject.runner, finals, blocks, means.depth)
            evidence = replace(evidence, plans=found)
        if "passes" in needs:
            evidence = replace(evidence, passes=watch.stats(means.depth))
    if "jacobians" in needs:
        first_order = sensitivities(
            subject.layers, subject.runner, subject.batches, blocks, seed=seed, report=report
        )
        evidence = replace(evidence, jacobians=first_order)
    if "groups" in needs:
        evidence = replace(evidence, groups=_groups(means, texts))
    if "deltas" in needs:
        deltas = np.diff(means.means, axis=0).mean(axis=1, dtype=np.float64)
        evidence = replace(evidence, deltas=deltas)
    return evidence


def _groups(means: PromptMeans, texts: Sequence[str]) -> dict[str, LayerStats]:
    """Statistics over the reasoning and over the general prompts, from the same pass.

    Raises:
        UsageError: there are not both kinds among the prompts.
    """
    general = set(load_prompts("general").texts)
    kinds: dict[str, list[int]] = {"reasoning": [], "general": []}
    for at, text in enumerate(texts):
        kinds["general" if text in general else "reasoning"].append(at)
    for kind, members in kinds.items():
        if not members:
            raise UsageError(
                f"scorer `contrastive` compares reasoning with general prompts, "
                f"and there are no {kind} ones",
                hint="use --prompts default",
            )
    return {kind: means.subset(members).layer_stats() for kind, members in kinds.items()}


def _identity(folder: Path, depth: int, width: int, model_type: str) -> ModelIdentity:
    digest = sha256((folder / "config.json").read_bytes()).hexdigest()
    return ModelIdentity(
        path=str(folder), model_type=model_type, depth=depth, width=width, config_digest=digest
    )

"""`probe`: model and prompts -> statistics -> rankings, in one call.

Reads the model, never writes; keeps no activations but means over positions.
"""

import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import UsageError
from surgeon.models import (
    Choice,
    choose_device,
    choose_dtype,
    load_config,
    load_tokenizer,
    stored_dtype,
)
from surgeon.probing.gather import PER_PROMPT, Measured, measure
from surgeon.probing.prompts import Prompts
from surgeon.probing.result import Chosen, ModelIdentity, ProbeResult, PromptsIdentity
from surgeon.probing.subject import open_model
from surgeon.probing.sweep import Report, sweep
from surgeon.probing.tokens import MAX_TOKENS, encode
from surgeon.score import CIRCUITPROBE, Scorer, get_scorer, rank
from surgeon.score.base import candidate_blocks
from surgeon.score.robustness import Robustness, robustness

__all__ = ["DEFAULT_SCORERS", "ProbeResult", "probe"]

DEFAULT_SCORERS = ("stability", "anomaly", "decisiveness", "consensus")

HEAD_NEEDS = ("plans", "jacobians")
"""Evidence that takes next-token logits, so the output projection has to be read."""


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
    skip_first: int = 0,
    entropy: bool = False,
    chat_template: bool = False,
    trust: bool = False,
    report: Report = _silent,
) -> ProbeResult:
    """Probe a model folder and rank its blocks.

    Args:
        model: a folder with config.json, safetensors and a tokenizer.
        prompts: calibration prompts. For `decisiveness` and `consensus` they end where an
            answer is due and range from easy to hard for this model.
        scorers: names of `surgeon.score.SCORERS`.
        sizes: block sizes in layers.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, or a choice made before.
        dtype: `auto` (the checkpoint's), a name, or a choice made before.
        seed: of everything that draws random numbers.
        compat: rank exactly as the released CircuitProbe program does.
        max_tokens: longer prompts are cut.
        skip_first: leading positions of each prompt to leave out of the means; in some
            families the first one has activations hundreds of times larger than the rest.
        entropy: also measure attention entropy; runs eager attention.
        chat_template: put each prompt into the tokenizer's chat template as a user turn.
        trust: also report how far the rankings can be trusted (`ProbeResult.robustness`).
        report: progress callback `(stage, done, total)`.

    Example:
        >>> import surgeon
        >>> model = surgeon.resolve("demo:planted").path
        >>> prompts = surgeon.load_prompts("task:cups", limit=20)
        >>> found = surgeon.probe(model, prompts, scorers=["stability"], sizes=[4])
        >>> found.ranking("stability").position(surgeon.Block.parse("4:8")) <= 3
        True

    Raises:
        UnknownName: an unknown scorer.
        UsageError: sizes, device, dtype or prompts do not fit.
        UnsupportedModel: not a decoder stack that can be run layer by layer.
        SurgeonError: loading fails, or activations are NaN or infinite.
    """
    started = time.monotonic()
    folder = Path(model)
    chosen = [get_scorer(name) for name in scorers]
    if not chosen:
        raise UsageError("no scorer was asked for")
    checkpoint = Checkpoint.open(folder)
    blocks = candidate_blocks(checkpoint.depth, sizes)
    device = choose_device(device) if isinstance(device, str) else device
    if isinstance(dtype, str):
        dtype = choose_dtype(dtype, stored_dtype(checkpoint.config), device.value)
    text = load_config(folder).get_text_config(decoder=True)
    ids, notes = encode(
        load_tokenizer(folder),
        prompts.texts,
        max_tokens=min(max_tokens, _context(text)),
        vocabulary=text.vocab_size,
        chat_template=chat_template,
    )
    subject = open_model(
        checkpoint,
        ids,
        device.value,
        dtype.value,
        head=any(scorer.needs in HEAD_NEEDS for scorer in chosen),
        attention="eager" if entropy else None,
    )
    means = sweep(
        subject.layers, subject.batches, skip_first=skip_first, entropy=entropy, report=report
    )
    measured = measure(subject, means, chosen, blocks, prompts.texts, seed, report)
    evidence = measured.evidence()
    mode = CIRCUITPROBE if compat else None
    assert evidence.layers is not None
    rankings = tuple(rank(evidence, scorer, sizes, mode) for scorer in chosen)
    trusted = _trust(measured, chosen, sizes, mode, seed, report) if trust else ()
    return ProbeResult(
        model=_identity(folder, checkpoint, text.hidden_size),
        prompts=_prompts_identity(prompts),
        tokens=sum(map(len, ids)),
        sizes=tuple(sizes),
        device=Chosen(value=device.value, reason=device.reason),
        dtype=Chosen(value=dtype.value, reason=dtype.reason),
        seed=seed,
        compat=mode,
        stats=evidence.layers,
        rankings=rankings,
        robustness=trusted,
        seconds=time.monotonic() - started,
        notes=(*notes, *subject.notes, *measured.notes()),
    )


def _trust(
    measured: Measured,
    scorers: Sequence[Scorer],
    sizes: Sequence[int],
    compat: str | None,
    seed: int,
    report: Report,
) -> tuple[Robustness, ...]:
    """Robustness of the scorers whose evidence is kept per prompt.

    `contrastive` needs both kinds of prompts in every draw, which a random draw does not
    promise, so it is left out.
    """
    able = [s for s in scorers if s.needs in PER_PROMPT and s.needs != "groups"]
    if not able:
        return ()
    narrowed = Measured(
        measured.means, measured.texts, frozenset(s.needs for s in able), measured.plans
    )
    return tuple(
        robustness(
            narrowed.evidence,
            len(measured.texts),
            able,
            sizes,
            compat=compat,
            groups=measured.languages(),
            seed=seed,
            report=lambda done, total: report("robustness", done, total),
        )
    )


def _context(text_config: Any) -> int:
    """How many positions the model has; unlimited where its config states none."""
    stated = getattr(text_config, "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else 1 << 30


def _identity(folder: Path, checkpoint: Checkpoint, width: int) -> ModelIdentity:
    return ModelIdentity(
        path=str(folder),
        model_type=checkpoint.model_type,
        depth=checkpoint.depth,
        width=width,
        config_digest=sha256((folder / "config.json").read_bytes()).hexdigest(),
    )


def _prompts_identity(prompts: Prompts) -> PromptsIdentity:
    return PromptsIdentity(
        name=prompts.name,
        origin=prompts.origin,
        digest=prompts.digest,
        count=len(prompts.texts),
    )

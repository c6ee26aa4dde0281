"""A model that is ready to be probed: its layers, and the prompts as they enter the first."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from surgeon.checkpoint.store import Checkpoint
from surgeon.layerwise import LayerRunner
from surgeon.models import decoder_layers, load_model
from surgeon.probing.capture import Captured, capture, keeps_apart
from surgeon.probing.pack import group, pack
from surgeon.probing.skeleton import CannotStream, Skeleton
from surgeon.probing.sweep import Layers, Loaded

ROW_TOKENS = 256
"""Tokens per packed row: enough to keep matrix products at full speed (256 is, on CPUs),
few enough that the masked part of attention, which grows with its square, stays small."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What the probe works on; `notes` say what was done differently from the usual."""

    runner: LayerRunner
    layers: Layers
    batches: list[Captured]
    notes: list[str]


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
        dtype: a name of `surgeon.models.DTYPES`.
        head: also make next-token logits possible.
        attention: attention implementation, or None for the library's choice.

    Returns:
        The model in layers; where streaming would be wrong the whole model is loaded, and
        the notes say why.

    Raises:
        UnsupportedModel: not a decoder stack that can be run layer by layer.
        SurgeonError: loading fails.
    """
    try:
        skeleton = Skeleton(checkpoint, dtype, device, attention)
        skeleton.fill_around(torch.tensor([token for row in ids for token in row]))
        if head:
            skeleton.fill_head()
    except CannotStream as reason:
        model = load_model(checkpoint.path, device=device, dtype=dtype, attention=attention)
        layers: Layers = Loaded(list(decoder_layers(model)[1]))
        notes = [f"the whole model is in memory: {reason}"]
    else:
        model, layers, notes = skeleton.model, skeleton.layers(), []
    runner = LayerRunner(model)
    batches, more = arrange(runner, ids, device)
    return Subject(runner, layers, batches, [*notes, *more])


def arrange(
    runner: LayerRunner, ids: Sequence[Sequence[int]], device: str
) -> tuple[list[Captured], list[str]]:
    """The prompts packed into rows if the model's masks keep them apart, else by length."""
    captured = []
    for batch in pack(ids, ROW_TOKENS, device):
        item = capture(runner, batch)
        if batch.packed and not keeps_apart(item):
            name = type(runner.model).__name__
            captured = [capture(runner, batch) for batch in group(ids, ROW_TOKENS, device)]
            return captured, [
                f"{name} cannot keep packed prompts apart: batched by equal length instead"
            ]
        captured.append(item)
    return captured, []

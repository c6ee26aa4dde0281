"""Run every candidate over the prompts and reduce what they predict to numbers.

A candidate runs block i:j twice: layers 0..j-1, then i..N-1. Everything up to layer j-1
is the base's own pass, so a candidate only needs the base's hidden states before layer j
and then layers i..N-1. Going through the layers in order, layer l serves the base and
every candidate with i <= l, so two passes over the layers serve all candidates, one layer
at a time, and the same pass shows f(f(x)) of each block on the way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from surgeon.block import Block
from surgeon.layerwise import LayerRunner
from surgeon.probing.capture import Captured
from surgeon.probing.sweep import Layers, Report
from surgeon.stats import PlanStats

CHUNK_BYTES = 512 << 20
"""Hidden states of candidates held at once; more prompts than fit are run in turns."""

LOGITS = 1 << 24
"""Logits computed at once, in numbers."""

Watcher = Callable[[Block, Captured, Tensor, Tensor, Tensor], None]
"""Sees (block, batch, x, f(x), f(f(x))) once per block and batch."""


@dataclass(frozen=True, eq=False)
class Finals:
    """Last-layer hidden states at each prompt's last token: (P, D) and (C, P, D)."""

    base: Tensor
    candidates: Tensor


@torch.no_grad()
def run_candidates(
    layers: Layers,
    batches: Sequence[Captured],
    blocks: Sequence[Block],
    *,
    watch: Watcher | None = None,
    to_the_end: bool = True,
    report: Report | None = None,
) -> Finals:
    """Run the base and every candidate over all batches.

    Args:
        layers: where the layers come from; each is fetched twice per chunk of batches.
        batches: all prompts, as they enter the first layer.
        blocks: the candidates.
        watch: sees each block's input, output and output on its output.
        to_the_end: False stops each candidate when its block has run twice; the candidates'
            final states are then not defined.
        report: progress callback.
    """
    prompts = sum(len(item.batch.prompts) for item in batches)
    hidden = batches[0].hidden
    base = hidden.new_empty(prompts, hidden.shape[-1])
    finals = hidden.new_empty(len(blocks), prompts, hidden.shape[-1])
    chunks = _chunks(batches, layers.depth + 1 + len(blocks))
    steps = 2 * layers.depth  # one pass for the base, one for the candidates
    for done, chunk in enumerate(chunks):

        def step(layer: int, done: int = done) -> None:
            if report:
                report("candidates", done * steps + layer, len(chunks) * steps)

        _run_chunk(layers, chunk, blocks, watch, to_the_end, Finals(base, finals), step)
    return Finals(base, finals)


def _chunks(batches: Sequence[Captured], states: int) -> list[list[Captured]]:
    """Batches in turns such that `states` hidden states of each turn fit `CHUNK_BYTES`."""
    chunks: list[list[Captured]] = []
    used = 0
    for item in batches:
        need = item.hidden.numel() * item.hidden.element_size() * states
        if not chunks or used + need > CHUNK_BYTES:
            chunks.append([])
            used = 0
        chunks[-1].append(item)
        used += need
    return chunks


def _run_chunk(
    layers: Layers,
    chunk: Sequence[Captured],
    blocks: Sequence[Block],
    watch: Watcher | None,
    to_the_end: bool,
    finals: Finals,
    step: Callable[[int], None],
) -> None:
    depth = layers.depth
    base = [[item.hidden] for item in chunk]  # base[b][l]: input of layer l
    for index in range(depth):
        with layers.resident(index) as layer:
            for item, states in zip(chunk, base, strict=True):
                states.append(item.calls[index](layer, states[-1]))
        step(index + 1)
    active: dict[int, list[Tensor]] = {}
    for index in range(depth):
        with layers.resident(index) as layer:
            for at, block in enumerate(blocks):
                if block.start == index:
                    active[at] = [states[block.stop] for states in base]
                if at in active:
                    active[at] = [
                        item.calls[index](layer, state)
                        for item, state in zip(chunk, active[at], strict=True)
                    ]
        for at, block in enumerate(blocks):
            if block.stop == index + 1:
                if watch:
                    for item, states, state in zip(chunk, base, active[at], strict=True):
                        watch(block, item, states[block.start], states[block.stop], state)
                if not to_the_end:
                    del active[at]
        step(depth + index + 1)
    for place, item in enumerate(chunk):
        rows = list(item.batch.prompts)
        finals.base[rows] = _last(item, base[place][depth])
        for at, states in active.items():
            finals.candidates[at, rows] = _last(item, states[place])


def _last(item: Captured, hidden: Tensor) -> Tensor:
    return hidden.reshape(-1, hidden.shape[-1])[item.batch.last()]


@torch.no_grad()
def compare_predictions(
    runner: LayerRunner, finals: Finals, blocks: Sequence[Block], depth: int
) -> PlanStats:
    """Next-token distributions of base and candidates, reduced prompt by prompt.

    Distributions are float64 softmaxes of the model's logits; none outlives its prompt.
    """
    c, p, width = finals.candidates.shape
    states = torch.cat([finals.base[None], finals.candidates])  # (1 + C, P, D)
    base_entropy, entropy = np.empty(p), np.empty((c, p))
    divergence, agreement = np.empty((c, p)), np.empty((c, p), dtype=np.bool_)
    gram = np.empty((p, c, c))
    vocabulary = runner.head(states[:1, 0]).shape[-1]
    step = max(1, LOGITS // (vocabulary * (1 + c)))
    for start in range(0, p, step):
        part = states[:, start : start + step]
        logits = runner.head(part.reshape(-1, width)).float()
        for offset in range(part.shape[1]):
            at = start + offset
            log = logits.view(1 + c, -1, vocabulary)[:, offset].double().log_softmax(-1)
            own = log.exp()  # (1 + C, V)
            every = -(own * log.clamp(min=-1e30)).sum(-1)
            base_entropy[at], entropy[:, at] = every[0].item(), every[1:].cpu().numpy()
            gap = (own[0] * (log[0] - log[1:]).nan_to_num(0.0)).sum(-1)
            divergence[:, at] = gap.cpu().numpy()
            top = log.argmax(-1)
            agreement[:, at] = (top[1:] == top[0]).cpu().numpy()
            gram[at] = (own[1:] @ own[1:].T).cpu().numpy()
    return PlanStats(depth, tuple(blocks), base_entropy, entropy, divergence, agreement, gram)

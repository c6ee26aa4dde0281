"""First-order sensitivities of every block by forward-mode derivatives, layer by layer.

A tangent is pushed through one layer at a time together with the hidden states, so no
graph is kept, no backward pass is run, and the layers can be streamed.
"""

from collections.abc import Sequence

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from surgeon.block import Block
from surgeon.errors import SurgeonError
from surgeon.layerwise import Call, LayerRunner
from surgeon.probing.capture import Captured
from surgeon.probing.sweep import Layers, Report
from surgeon.stats import BlockStats

PROBES = 4
"""Random probes per block and prompt: one block's estimate has a relative error of about
1 / sqrt(2 * probes * prompts)."""


@torch.no_grad()
def sensitivities(
    layers: Layers,
    runner: LayerRunner,
    batches: Sequence[Captured],
    blocks: Sequence[Block],
    *,
    seed: int = 0,
    probes: int = PROBES,
    report: Report | None = None,
) -> BlockStats:
    """`jacobian` and `taylor` of each block, means over prompts.

    Args:
        layers: where the layers come from; each is fetched twice.
        runner: the model, for its head.
        batches: all prompts, as they enter the first layer.
        blocks: which blocks.
        seed: of the probes.
        probes: random probes per block and prompt.
        report: progress callback.

    Raises:
        SurgeonError: an operation of the model has no forward-mode derivative.
    """
    norms: dict[Block, list[Tensor]] = {block: [] for block in blocks}
    effects: dict[Block, list[Tensor]] = {block: [] for block in blocks}
    generator = torch.Generator().manual_seed(seed)
    for done, item in enumerate(batches):
        states = [item.hidden]
        for index in range(layers.depth):
            with layers.resident(index) as layer:
                states.append(item.calls[index](layer, states[-1]))
        pushed = _Pushed(item, states, blocks, probes, generator)
        for index in range(layers.depth):
            with layers.resident(index) as layer:
                pushed.through(layer, item.calls[index], index, norms)
        for block, change in pushed.effects(runner).items():
            effects[block].append(change)
        if report:
            report("jacobian", done + 1, len(batches))
    return BlockStats(layers.depth, {"jacobian": _mean(norms), "taylor": _mean(effects)})


def _mean(parts: dict[Block, list[Tensor]]) -> dict[Block, float]:
    joined = {block: torch.cat(rows) for block, rows in parts.items() if rows}
    return {block: float(rows.double().mean()) for block, rows in joined.items() if len(rows)}


class _Pushed:
    """The tangents that are under way on one batch."""

    def __init__(
        self,
        item: Captured,
        states: list[Tensor],
        blocks: Sequence[Block],
        probes: int,
        generator: torch.Generator,
    ) -> None:
        self.item, self.states, self.blocks = item, states, blocks
        self.probes, self.generator = probes, generator
        self.starts: dict[int, list[Tensor]] = {}
        self.removed: dict[Block, Tensor] = {}

    def through(
        self, layer: nn.Module, call: Call, index: int, norms: dict[Block, list[Tensor]]
    ) -> None:
        """Push every tangent that is under way through one layer."""
        reach = {block.start: block.stop for block in sorted(self.blocks)}
        if index in reach:
            self.starts[index] = [self._probe() for _ in range(self.probes)]
        state = self.states[index]
        for start in [s for s in self.starts if reach[s] > index]:
            self.starts[start] = [jvp(layer, call, state, t) for t in self.starts[start]]
        for block in self.removed:
            self.removed[block] = jvp(layer, call, state, self.removed[block])
        for block in self.blocks:
            if block.stop == index + 1:
                means = [self.item.batch.means(t) for t in self.starts[block.start]]
                squares = torch.stack([m.square().sum(dim=1) for m in means])  # (K, prompts)
                norms[block].append(squares.mean(dim=0).sqrt())
                self.removed[block] = self.states[block.stop] - self.states[block.start]

    def _probe(self) -> Tensor:
        """One random direction per prompt, the same at all of its positions: (B, T, D)."""
        hidden = self.item.hidden
        size = (len(self.item.batch.prompts), hidden.shape[-1])
        each = torch.randn(size, generator=self.generator).to(hidden)
        return each[self.item.batch.owners()].reshape(hidden.shape)

    def effects(self, runner: LayerRunner) -> dict[Block, Tensor]:
        """|first-order change of the last token's log-likelihood| per prompt of 2+ tokens."""
        batch = self.item.batch
        kept = torch.tensor(batch.lengths, device=batch.ids.device) > 1
        last = batch.last()[kept]
        target = batch.ids.reshape(-1)[last]
        width = self.item.hidden.shape[-1]
        state = self.states[-1].reshape(-1, width)[last - 1]
        found = {}
        for block, tangent in self.removed.items():
            if not len(last):
                break
            with forward.dual_level():
                dual = forward.make_dual(state, tangent.reshape(-1, width)[last - 1])
                log = runner.head(dual).float().log_softmax(-1)
                chosen = log.gather(1, target[:, None])[:, 0]
                change = forward.unpack_dual(chosen).tangent
            found[block] = torch.zeros_like(chosen) if change is None else change.abs()
        return found


def jvp(layer: nn.Module, call: Call, state: Tensor, tangent: Tensor) -> Tensor:
    """The derivative of a layer at `state` in the direction `tangent`, both (B, T, D).

    Raises:
        SurgeonError: an operation of the layer has no forward-mode derivative.
    """
    try:
        # Fused attention has no forward-mode derivative; the plain formula has.
        with forward.dual_level(), sdpa_kernel(SDPBackend.MATH):
            output = call(layer, forward.make_dual(state, tangent))
            moved = forward.unpack_dual(output).tangent
    except (NotImplementedError, RuntimeError) as error:
        raise SurgeonError(
            f"{type(layer).__name__} has an operation without a forward-mode derivative: "
            f"{str(error).splitlines()[0]}",
            hint="leave out the scorer `jacobian`",
        ) from error
    return torch.zeros_like(state) if moved is None else moved

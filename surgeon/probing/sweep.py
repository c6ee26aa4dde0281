"""One pass through the layers: every batch through layer 0, then layer 1, and so on.

Each layer is needed once, so its weights can be fetched, used for all prompts, and let go.
What is kept of the activations are means over positions, in float32.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from surgeon.errors import SurgeonError
from surgeon.probing.capture import Captured
from surgeon.stats import Floats, PromptMeans

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""


class Layers(Protocol):
    """Where a sweep gets its layers from."""

    @property
    def depth(self) -> int:
        """Number of decoder layers."""

    def resident(self, layer: int) -> AbstractContextManager[nn.Module]:
        """One layer with its weights, for as long as the context is open."""


@dataclass(frozen=True)
class Loaded:
    """Layers of a model that is in memory as a whole."""

    layers: Sequence[nn.Module]

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    def resident(self, layer: int) -> AbstractContextManager[nn.Module]:
        """The layer; nothing to fetch."""
        return nullcontext(self.layers[layer])


@torch.no_grad()
def sweep(
    layers: Layers,
    batches: Sequence[Captured],
    *,
    skip_first: int = 0,
    entropy: bool = False,
    report: Report | None = None,
) -> PromptMeans:
    """Run every batch through every layer once and keep the position means.

    Args:
        layers: where the layers come from.
        batches: all prompts, as they enter the first layer.
        skip_first: leading positions of each prompt to leave out of the means.
        entropy: also measure attention entropy (needs eager attention).
        report: progress callback, called after each layer.

    Raises:
        SurgeonError: activations are NaN or infinite; names the first layer.
    """
    prompts = sum(len(item.batch.prompts) for item in batches)
    width = batches[0].hidden.shape[-1]
    means = np.empty((layers.depth + 1, prompts, width), dtype=np.float32)
    lengths = np.empty(prompts, dtype=np.int64)
    hidden = [item.hidden for item in batches]
    for item in batches:
        lengths[list(item.batch.prompts)] = item.batch.lengths
    _keep(means[0], batches, hidden, skip_first)
    _refuse_broken(means[0], "the embeddings give")
    rows = np.empty((layers.depth, prompts)) if entropy else None
    for index in range(layers.depth):
        with layers.resident(index) as layer:
            for at, item in enumerate(batches):
                watch = AttentionEntropy(layer, item) if rows is not None else None
                with watch or nullcontext():
                    hidden[at] = item.calls[index](layer, hidden[at])
                if watch and rows is not None:
                    rows[index, list(item.batch.prompts)] = watch.values(index)
        _keep(means[index + 1], batches, hidden, skip_first)
        _refuse_broken(means[index + 1], f"layer {index} gives")
        if report:
            report("probe", index + 1, layers.depth)
    return PromptMeans(means, lengths, rows)


def _keep(
    into: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]",
    batches: Sequence[Captured],
    hidden: Sequence[Tensor],
    skip: int,
) -> None:
    for item, states in zip(batches, hidden, strict=True):
        into[list(item.batch.prompts)] = item.batch.means(states, skip).cpu().numpy()


def _refuse_broken(means: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", who: str) -> None:
    """A NaN or infinity at any position reaches the mean of its prompt."""
    bad = ~np.isfinite(means).all(axis=1)
    if bad.any():
        raise SurgeonError(
            f"{who} NaN or infinite activations, first on prompt {int(bad.argmax())}",
            hint="the weights are broken, or --dtype is too narrow for this model; "
            "try --dtype float32",
        )


class AttentionEntropy:
    """Watches the attention of one layer while it runs on one batch.

    The attention module is the child that returns (output, weights) with weights
    (B, heads, T, T), which eager attention does.
    """

    def __init__(self, layer: nn.Module, item: Captured) -> None:
        self.layer, self.item = layer, item
        self._weights: list[Tensor] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> "AttentionEntropy":
        for module in self.layer.modules():
            if module is not self.layer:
                self._handles.append(module.register_forward_hook(self._look))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, module: nn.Module, inputs: object, output: object) -> None:
        tokens = self.item.batch.ids.shape[1]
        if isinstance(output, tuple) and len(output) > 1:
            weights = output[1]
            if isinstance(weights, Tensor) and weights.shape[-2:] == (tokens, tokens):
                self._weights.append(weights)

    def values(self, index: int) -> Floats:
        """(prompts,) mean entropy over heads and query rows, in nats.

        Raises:
            SurgeonError: the layer did not give its attention weights.
        """
        if not self._weights:
            raise SurgeonError(
                f"layer {index} does not give its attention weights, so their entropy "
                "cannot be measured",
                hint="leave out --entropy",
            )
        weights = self._weights[0]
        values = []
        for place, (start, stop) in enumerate(self.item.batch.spans()):
            own = weights[0, :, start:stop, start:stop] if len(weights) == 1 else weights[place]
            p = own.float().clamp(min=1e-10)
            values.append(float(-(p * p.log()).sum(-1).mean()))
        return np.asarray(values)

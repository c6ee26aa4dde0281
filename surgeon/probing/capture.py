"""A batch of prompts at the door of the first layer, and whether a model keeps them apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgeon.layerwise import Call, LayerRunner
from surgeon.probing.pack import Batch


@dataclass(frozen=True, eq=False)
class Captured:
    """A batch as it enters the first layer, (B, T, D), and how each layer is called on it."""

    batch: Batch
    hidden: Tensor
    calls: tuple[Call, ...]


def capture(runner: LayerRunner, batch: Batch) -> Captured:
    """Bring a batch to the first layer of a model.

    Raises:
        UnsupportedModel: the model does not run its layers once each, in order.
    """
    extra = {"position_ids": batch.positions.clone()} if runner.takes_positions else {}
    inputs = runner.capture(batch.ids, **extra)
    return Captured(batch, inputs.hidden, inputs.calls)


def keeps_apart(captured: Captured) -> bool:
    """Whether every layer's mask stops packed prompts from attending to each other.

    Reads the masks that the model made: each layer call must carry a (.., T, T) tensor
    that is False, or below -1e4, wherever a query and a key belong to different prompts.
    """
    owners = captured.batch.owners()
    foreign = owners[:, None] != owners[None]  # (T, T)
    checked: dict[int, bool] = {}
    for call in captured.calls:
        masks = [m for m in (*call.args, *call.kwargs.values()) if _is_mask(m, foreign)]
        if not masks:
            return False
        for mask in masks:
            if id(mask) not in checked:
                shut = ~mask if mask.dtype == torch.bool else mask < -1e4
                checked[id(mask)] = bool(shut[..., foreign].all())
            if not checked[id(mask)]:
                return False
    return True


def _is_mask(value: Any, foreign: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim >= 3 and value.shape[-2:] == foreign.shape

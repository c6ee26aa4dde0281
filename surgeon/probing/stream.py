"""Decoder layers that have no weights until they are needed.

`Streamed.resident` gives one layer its weights as views of the checkpoint's files and takes
them back, so one layer is in memory at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgeon.probing.weights import WeightFiles


@dataclass(frozen=True)
class Slot:
    """One parameter of the model and the stored tensor that fills it."""

    module: nn.Module
    leaf: str
    stored: str

    @property
    def empty(self) -> Tensor:
        """The parameter or buffer as it is now."""
        found = own_tensor(self.module, self.leaf)
        assert found is not None
        return found

    def put(self, value: Tensor) -> None:
        """Set the parameter or buffer without copying."""
        if self.leaf in self.module._parameters:
            self.module._parameters[self.leaf] = nn.Parameter(value, requires_grad=False)
        else:
            self.module._buffers[self.leaf] = value


class Streamed:
    """The decoder layers of a checkpoint, one in memory at a time.

    Args:
        layers: the model's layers, without weights.
        files: the checkpoint's tensors.
        slots: for each layer, its parameters.
        device: where a layer runs.
        dtype: what it computes in.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        files: WeightFiles,
        slots: Sequence[Sequence[Slot]],
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self._layers, self._files, self._slots = layers, files, slots
        self._device, self._dtype = device, dtype

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self._layers)

    @contextmanager
    def resident(self, layer: int) -> Iterator[nn.Module]:
        """One layer with its weights, for as long as the context is open."""
        following = self._slots[(layer + 1) % self.depth]
        self._files.prefetch(slot.stored for slot in following)
        empty = [slot.empty for slot in self._slots[layer]]
        try:
            for slot in self._slots[layer]:
                slot.put(fetch(self._files, slot.stored, self._device, self._dtype))
            yield self._layers[layer]
        finally:
            for slot, nothing in zip(self._slots[layer], empty, strict=True):
                slot.put(nothing)
            self._files.release(slot.stored for slot in self._slots[layer])


def fetch(files: WeightFiles, name: str, device: str, dtype: torch.dtype) -> Tensor:
    """A stored tensor on a device in a dtype; a view of the file where nothing changes."""
    return files.view(name).to(device=device, dtype=dtype)


def own_tensor(module: nn.Module, leaf: str) -> Tensor | None:
    """A module's own parameter or buffer."""
    if leaf in module._parameters:
        return module._parameters[leaf]
    return module._buffers.get(leaf)

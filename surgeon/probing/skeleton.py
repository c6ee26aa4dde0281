"""A model without weights over a checkpoint: which stored tensor fills which parameter.

The model is built from its config with parameters that hold no memory. The embedding is
cut down to the rows the prompts use; the layers are streamed.

Where the stored tensors are not the model's own (families that transformers converts on
load, quantised weights, other names) streaming would be wrong: `CannotStream` says so, and
the caller loads the whole model instead.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.initialization import no_init_weights

from surgeon.checkpoint.store import Checkpoint
from surgeon.models import DTYPES, auto_class, decoder_layers, load_config
from surgeon.probing.stream import Slot, Streamed, fetch, own_tensor
from surgeon.probing.weights import TORCH_DTYPES, WeightFiles

_OLD_BUFFERS = re.compile(r"\.(rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias)$")
"""Constants that old checkpoints store and current models compute."""


class CannotStream(Exception):
    """Streaming would be wrong for this checkpoint; the message says why. Never leaves here."""


def empty_model(path: Path, dtype: str, attention: str | None = None) -> PreTrainedModel:
    """The model of a folder with the shapes of its parameters and none of their memory."""
    config = load_config(path)
    extra = {"attn_implementation": attention} if attention else {}
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = auto_class(config).from_config(config, dtype=DTYPES[dtype], **extra)
    return model.eval()  # type: ignore[no-any-return]


class Skeleton:
    """An empty model over a checkpoint: which stored tensor fills which parameter.

    Args:
        checkpoint: the opened checkpoint.
        dtype: a name of `DTYPES`.
        device: where to compute.
        attention: attention implementation, or None for the library's choice.

    Raises:
        CannotStream: the stored tensors are not the model's own.
    """

    def __init__(
        self, checkpoint: Checkpoint, dtype: str, device: str, attention: str | None = None
    ) -> None:
        self.model = empty_model(checkpoint.path, dtype, attention)
        self.files = WeightFiles(checkpoint)
        self._dtype, self._device = DTYPES[dtype], device
        self.path, stack = decoder_layers(self.model)
        self.stack = list(stack)
        self._prefix = checkpoint.stack.prefix
        if any(isinstance(t, WeightConverter) for t in get_model_conversion_mapping(self.model)):
            kind = self.model.config.model_type
            raise CannotStream(f"transformers converts the weights of {kind} on load")
        self._layer_slots = [self._of_layer(index) for index in range(len(self.stack))]
        self._refuse_leftovers()

    def layers(self) -> Streamed:
        """The decoder layers, to be run one at a time."""
        return Streamed(self.stack, self.files, self._layer_slots, self._device, self._dtype)

    def owner_path(self) -> str:
        """Path of the module that holds the layer list; empty for the model itself."""
        return self.path.rpartition(".")[0]

    def fill_around(self, ids: Tensor) -> None:
        """Give weights to what runs before the layers, the embedding only for `ids`.

        What runs after them is filled by `fill_head`; nothing else is ever run.
        """
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Module)
        owner = self.model.get_submodule(self.owner_path())
        inside = set(self.stack)
        for module in _outside(owner, inside):
            for slot in self._slots(module):
                if module is not table:
                    slot.put(fetch(self.files, slot.stored, self._device, self._dtype).clone())
                    self.files.release([slot.stored])
        (slot,) = self._slots(table)
        used = ids.unique()
        rows = self.files.view(slot.stored)[used.cpu()]
        slot.put(rows.to(device=self._device, dtype=self._dtype))
        self.files.release([slot.stored])
        places = torch.zeros(int(used.max()) + 1, dtype=torch.long, device=self._device)
        places[used] = torch.arange(len(used), device=self._device)
        table.register_forward_pre_hook(
            lambda module, args: (places[args[0].clamp(max=len(places) - 1)], *args[1:])
        )
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(self._device)

    def fill_head(self) -> None:
        """Give the output projection its weights: the largest tensor of most small models."""
        head = self.model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise CannotStream(f"{type(self.model).__name__} has no output embeddings")
        table = self.model.get_input_embeddings()
        assert isinstance(table, nn.Module)
        for leaf, empty in list(head.named_parameters(recurse=False)):
            stored = self._stored_name(head, leaf) or self._only_of_its_shape(
                tuple(empty.shape), leaf, self._stored_name(table, "weight")
            )
            if stored is None and leaf == "weight" and _tied(self.model.config):
                stored = self._stored_name(table, "weight")
            if stored is None:
                raise CannotStream(f"the checkpoint has no tensor for the head's {leaf}")
            slot = self._slot(head, leaf, stored, empty)
            slot.put(fetch(self.files, stored, self._device, self._dtype))

    def _only_of_its_shape(
        self, shape: tuple[int, ...], leaf: str, table: str | None
    ) -> str | None:
        """The head under an older name: the one tensor of its shape beside the embedding."""
        found = [
            name
            for name in self.files.names()
            if tuple(self.files.entry(name).shape) == shape
            and name.rpartition(".")[2] == leaf
            and name != table
            and not name.startswith(self._prefix)
        ]
        return found[0] if len(found) == 1 else None

    def _of_layer(self, index: int) -> list[Slot]:
        prefix = f"{self._prefix}{index}."
        slots = []
        for name, value in self.stack[index].state_dict(keep_vars=True).items():
            slots.append(self._slot(self.stack[index], name, prefix + name, value))
        return slots

    def _slot(self, root: nn.Module, name: str, stored: str, value: Tensor) -> Slot:
        parent, _, leaf = name.rpartition(".")
        if stored not in self.files:
            raise CannotStream(f"the checkpoint has no tensor `{stored}`")
        entry = self.files.entry(stored)
        if entry.dtype not in TORCH_DTYPES:
            raise CannotStream(f"`{stored}` is stored as {entry.dtype}")
        if tuple(entry.shape) != tuple(value.shape):
            raise CannotStream(
                f"`{stored}` has shape {list(entry.shape)}, the model {list(value.shape)}"
            )
        return Slot(root.get_submodule(parent), leaf, stored)

    def _slots(self, module: nn.Module) -> list[Slot]:
        """The slots of one module outside the stack, its children not included."""
        persistent = [n for n in module._buffers if n not in module._non_persistent_buffers_set]
        slots = []
        for leaf in [*module._parameters, *persistent]:
            value = own_tensor(module, leaf)
            if value is None:
                continue
            stored = self._stored_name(module, leaf)
            if stored is None:
                raise CannotStream(f"the checkpoint has no tensor for `{leaf}` of {module}")
            slots.append(self._slot(module, leaf, stored, value))
        return slots

    def _stored_name(self, module: nn.Module, leaf: str) -> str | None:
        """Where a parameter outside the stack is stored, under the checkpoint's own prefix."""
        path = next(name for name, found in self.model.named_modules() if found is module)
        full = f"{path}.{leaf}" if path else leaf
        owner = self.owner_path()
        stack = self.path.rpartition(".")[2]
        stored_owner = self._prefix.removesuffix(f"{stack}.")
        names = [full]
        if owner and full.startswith(f"{owner}."):
            names.insert(0, stored_owner + full[len(owner) + 1 :])
        return next((name for name in names if name in self.files), None)

    def _refuse_leftovers(self) -> None:
        """A stored layer tensor that fills nothing means that the names do not tell it all."""
        used = {slot.stored for slots in self._layer_slots for slot in slots}
        for name in self.files.names():
            inside = name.startswith(self._prefix) and name[len(self._prefix) :][:1].isdigit()
            index = name[len(self._prefix) :].split(".")[0]
            if not inside or int(index) >= len(self.stack):
                continue  # prediction layers behind the stack are not run
            if name not in used and not _OLD_BUFFERS.search(name):
                raise CannotStream(f"the model has no place for the stored tensor `{name}`")


def _tied(config: Any) -> bool:
    """Whether the head shares the embedding; a text tower may leave it to the outer config."""
    text = config.get_text_config(decoder=True)
    stated = getattr(text, "tie_word_embeddings", None)
    return bool(getattr(config, "tie_word_embeddings", False) if stated is None else stated)


def _outside(owner: nn.Module, inside: set[nn.Module]) -> Iterator[nn.Module]:
    """Every module under `owner` that is not part of the stack, `owner` included."""
    yield owner
    for child in owner.children():
        if child not in inside and not (
            isinstance(child, nn.ModuleList) and any(layer in inside for layer in child)
        ):
            yield from _outside(child, inside)

"""Run a model's own layers by hand, with the arguments the model itself would give them.

Masks, rotary embeddings and positions differ from family to family. Instead of building
them again, the model's own forward is run once per batch with every layer replaced by a
recorder that keeps its arguments and passes the hidden states through. The layers can
then be run in any order, one at a time, on any hidden states of the same batch.

Nothing is copied: patched methods are put back on every way out.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from surgeon.errors import UnsupportedModel
from surgeon.probe.pack import Batch


@dataclass(frozen=True, eq=False)
class Call:
    """How the model calls one layer: everything but the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """The layer's output hidden states, the same shape as `hidden`."""
        output = layer(hidden, *self.args, **self.kwargs)
        states: Tensor = output[0] if isinstance(output, tuple) else output
        return states


@dataclass(frozen=True, eq=False)
class Captured:
    """A batch as it enters the first layer, and how each layer is called on it."""

    batch: Batch
    hidden: Tensor  # (B, T, D)
    calls: tuple[Call, ...]


class _Done(Exception):
    """Raised by the last recorder: what comes after the layers is not needed."""


@contextmanager
def _patched(layers: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Replace the forward of each layer object while the body runs."""
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def owner_of(model: PreTrainedModel, stack_path: str) -> nn.Module:
    """The module whose forward runs the stack: the parent of the layer list."""
    parent, _, _ = stack_path.rpartition(".")
    return model.get_submodule(parent)


class _Tuples(Exception):
    """Raised when a recorder sees that the model unpacks what a layer returns."""


class Runner:
    """Captures batches of one model and runs its head.

    Args:
        model: the model; its layers may be without weights, the rest may not.
        owner: the module whose forward runs the layers.
        layers: the decoder layers in order, the objects that `owner` holds.
    """

    def __init__(
        self, model: PreTrainedModel, owner: nn.Module, layers: Sequence[nn.Module]
    ) -> None:
        self.model, self.owner, self.layers = model, owner, list(layers)
        self._tuples = False
        parameters = inspect.signature(owner.forward).parameters
        self._positions = "position_ids" in parameters

    @torch.no_grad()
    def capture(self, batch: Batch) -> Captured:
        """Run what comes before the layers and keep how each layer would be called.

        Raises:
            UnsupportedModel: the model does not run its layers once each, in order.
        """
        try:
            return self._capture(batch)
        except _Tuples:
            self._tuples = True
            return self._capture(batch)

    def _capture(self, batch: Batch) -> Captured:
        first: list[Tensor] = []
        calls: list[Call] = []

        def recorder(index: int) -> Callable[..., Any]:
            def record(*args: Any, **kwargs: Any) -> Any:
                hidden, call = _split(args, kwargs)
                # A model that takes `outputs[0]` of a bare tensor has lost the batch axis.
                if hidden.ndim == 2 and not self._tuples:
                    raise _Tuples
                if len(calls) != index:
                    raise UnsupportedModel(
                        f"{type(self.model).__name__} does not run its layers once each, in order"
                    )
                first.append(hidden)
                calls.append(call)
                if index + 1 == len(self.layers):
                    raise _Done
                return self._returned(hidden)

            return record

        inputs: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
        if self._positions:
            inputs["position_ids"] = batch.positions.clone()
        with _patched(self.layers, [recorder(i) for i in range(len(self.layers))]):
            try:
                self.owner(**inputs)
            except _Done:
                return Captured(batch, first[0], tuple(calls))
        raise UnsupportedModel(
            f"{type(self.model).__name__} ran {len(calls)} of its {len(self.layers)} layers"
        )

    def _returned(self, hidden: Tensor) -> Any:
        return (hidden,) if self._tuples else hidden

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """(R, V) float32 next-token logits of (R, D) last-layer hidden states.

        Runs the model's own forward on R one-token rows whose layers hand these states
        through, so final norm, scales and soft caps are the model's. `capture` must have
        run before.
        """
        rows = hidden[:, None]  # (R, 1, D)

        def through(*args: Any, **kwargs: Any) -> Any:
            return self._returned(rows)

        ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
        with _patched(self.layers, [through] * len(self.layers)):
            logits = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, -1].float()  # type: ignore[no-any-return]


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    """The hidden states of a layer call, and the rest."""
    if args:
        return args[0], Call(args[1:], kwargs)
    rest = dict(kwargs)
    return rest.pop("hidden_states"), Call((), rest)


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

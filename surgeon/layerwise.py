"""Run a model's own layers one at a time, with the arguments the model itself gives them.

Masks, rotary tables and positions differ from family to family, and so do what comes before
the layers and after them. Nothing of that is written again here: the model's own forward is
run with recorders in place of the layers, which yields the input of the first layer and how
each layer is called. The layers can then be run in any order, on any hidden states of the
same batch, and the model's own forward turns the last state into logits.

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
from surgeon.models import decoder_layers


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
class LayerInputs:
    """What enters the first layer, (B, T, D), and how each layer is called on that batch."""

    hidden: Tensor
    calls: tuple[Call, ...]


class _Done(Exception):
    """Raised by the last recorder: what comes after the layers is not needed."""


class _Unpacks(Exception):
    """Raised when a recorder sees that the model unpacks what a layer returns."""


class LayerRunner:
    """A model taken apart into what comes before the layers, the layers, and the head.

    Args:
        model: in eval mode; its layers may be without weights until they are run.

    Raises:
        UnsupportedModel: the decoder stack cannot be found.
    """

    def __init__(self, model: PreTrainedModel):
        path, stack = decoder_layers(model)
        self.model = model
        self.owner = model.get_submodule(path.rpartition(".")[0])
        self.layers = list(stack)
        self.takes_positions = "position_ids" in inspect.signature(self.owner.forward).parameters
        self._as_tuple = False
        self._device = torch.device("cpu")

    @torch.no_grad()
    def capture(self, ids: Tensor, **extra: Any) -> LayerInputs:
        """Run what comes before the layers and keep how each layer would be called.

        Args:
            ids: token ids (B, T).
            extra: further arguments of the decoder's forward, such as mask and positions.

        Raises:
            UnsupportedModel: the model does not run its layers once each, in order.
        """
        try:
            return self._capture(ids, extra)
        except _Unpacks:
            self._as_tuple = True
            return self._capture(ids, extra)

    def _capture(self, ids: Tensor, extra: dict[str, Any]) -> LayerInputs:
        self._device = ids.device
        first: list[Tensor] = []
        calls: list[Call] = []

        def recorder(index: int) -> Callable[..., Any]:
            def record(*args: Any, **kwargs: Any) -> Any:
                hidden, call = _split(args, kwargs)
                # A model that takes `outputs[0]` of a bare tensor has lost the batch axis.
                if hidden.ndim == 2 and not self._as_tuple:
                    raise _Unpacks
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

        with _patched(self.layers, [recorder(i) for i in range(len(self.layers))]):
            try:
                self.owner(input_ids=ids, use_cache=False, **extra)
            except _Done:
                return LayerInputs(first[0], tuple(calls))
        raise UnsupportedModel(
            f"{type(self.model).__name__} ran {len(calls)} of its {len(self.layers)} layers"
        )

    def _returned(self, hidden: Tensor) -> Any:
        return (hidden,) if self._as_tuple else hidden

    def step(self, layer: int, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """One source layer: (B, T, D) -> (B, T, D)."""
        return inputs.calls[layer](self.layers[layer], hidden)

    @torch.no_grad()
    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and head: last-layer states (S, D) -> next-token logits (S, V).

        Each state goes in as a sequence of one token, so that no mask of S x S is made and
        no table of positions is exceeded. `capture` must have run before.
        """
        rows = hidden[:, None]  # (S, 1, D)

        def through(*args: Any, **kwargs: Any) -> Any:
            return self._returned(rows)

        ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=self._device)
        with _patched(self.layers, [through] * len(self.layers)):
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, -1]

    def require_same_logits(self) -> None:
        """Run a short example both ways.

        Raises:
            UnsupportedModel: the layers run one by one do not give the model's own logits.
        """
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        ids = (torch.arange(2, 14, device=self.model.device) % vocabulary).reshape(2, 6)
        with torch.inference_mode():
            want = self.model(input_ids=ids, use_cache=False).logits.float()
            got = self._logits(ids).float()
        if not want.isfinite().all():
            return  # broken weights are reported where they are scored, with the document
        slack = 1e-4 if self.model.dtype == torch.float32 else 2.0**-4
        scale = max(1.0, float(want.abs().max()))
        if not float((want - got).abs().max()) <= slack * scale:
            raise UnsupportedModel(
                f"{type(self.model).__name__}: layers run one by one do not give its logits"
            )

    def _logits(self, ids: Tensor) -> Tensor:
        inputs = self.capture(ids)
        hidden = inputs.hidden
        for layer in range(len(self.layers)):
            hidden = self.step(layer, hidden, inputs)
        return self.head(hidden.flatten(0, 1)).reshape(*ids.shape, -1)


@contextmanager
def _patched(layers: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Replace the forward of each layer object while the body runs.

    A layer may carry a forward of its own already: models spread over devices do.
    """
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = own


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    """The hidden states of a layer call, and the rest."""
    if args:
        return args[0], Call(args[1:], kwargs)
    rest = dict(kwargs)
    return rest.pop("hidden_states"), Call((), rest)

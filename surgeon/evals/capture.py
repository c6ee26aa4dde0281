"""Run a model's decoder layers one at a time, with the arguments the model itself gives them.

Nothing of a model is re-implemented. Its own forward pass is run once per batch with
recorders in place of the layers, which yields the embedded input and, for each layer, the
mask, rotary tables and positions that belong to it. The layers are then called with these
in whatever order a plan asks for, and the model's own forward, with stubs that return the
final hidden state, applies its norm, head, scaling and soft-capping.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from surgeon.errors import UnsupportedModel
from surgeon.models import decoder_layers

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Captured:
    """Input of the first layer (B, T, D) and the other arguments of each source layer."""

    hidden: torch.Tensor
    calls: list[Call]


class _Stand(nn.Module):
    """Takes a layer's place; any attribute the model asks for is the real layer's."""

    def __init__(self, real: nn.Module):
        super().__init__()
        self.__dict__["real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)


class _Recorder(_Stand):
    def __init__(self, real: nn.Module, seen: list[Any], as_tuple: bool):
        super().__init__(real)
        self.__dict__.update(seen=seen, as_tuple=as_tuple)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden, rest = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        self.__dict__["seen"].append((hidden, rest, kwargs))
        return (hidden,) if self.__dict__["as_tuple"] else hidden


class _Result(_Stand):
    def __init__(self, real: nn.Module, hidden: torch.Tensor, as_tuple: bool):
        super().__init__(real)
        self.__dict__.update(hidden=hidden, as_tuple=as_tuple)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = self.__dict__["hidden"]
        return (hidden,) if self.__dict__["as_tuple"] else hidden


class LayerRunner:
    """A model taken apart into input, layers and head.

    Args:
        model: loaded, in eval mode; it is left as it was after every call.

    Raises:
        UnsupportedModel: the decoder stack cannot be found, or running the layers one by
            one does not give the model's own logits.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        path, stack = decoder_layers(model)
        parent, _, self._leaf = path.rpartition(".")
        self._parent = model.get_submodule(parent)
        self.layers = list(stack)
        self._tuple = False
        self._require_same_logits()

    @contextmanager
    def _instead(self, stands: list[nn.Module]) -> Iterator[None]:
        real = self._parent._modules[self._leaf]
        self._parent._modules[self._leaf] = nn.ModuleList(stands)
        try:
            yield
        finally:
            self._parent._modules[self._leaf] = real

    def capture(self, ids: torch.Tensor, **extra: Any) -> Captured:
        """Run everything before the layers.

        Args:
            ids: token ids (B, T).
            extra: further arguments of the model's forward (mask, positions).
        """
        seen: list[Any] = []
        with self._instead([_Recorder(layer, seen, self._tuple) for layer in self.layers]):
            self.model(input_ids=ids, use_cache=False, **extra)
        if len(seen) != len(self.layers):
            raise UnsupportedModel(
                f"{type(self.model).__name__} called {len(seen)} of its {len(self.layers)} layers"
            )
        return Captured(seen[0][0], [(args, kwargs) for _, args, kwargs in seen])

    def step(self, layer: int, hidden: torch.Tensor, captured: Captured) -> torch.Tensor:
        """One source layer: (B, T, D) -> (B, T, D)."""
        args, kwargs = captured.calls[layer]
        out = self.layers[layer](hidden, *args, **kwargs)
        after: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return after

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm and head: (S, D) -> logits (S, V).

        Each position goes in as a sequence of length one, so no mask of S x S is made and
        learned position tables are never exceeded.
        """
        hidden = hidden[:, None]  # (S, 1, D)
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.model.device)
        with self._instead([_Result(layer, hidden, self._tuple) for layer in self.layers]):
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, 0]

    def _require_same_logits(self) -> None:
        vocabulary = self.model.config.get_text_config(decoder=True).vocab_size
        ids = (torch.arange(2, 14, device=self.model.device) % vocabulary).reshape(2, 6)
        outputs: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda _m, _i, output: outputs.append(output))
        with torch.inference_mode():
            want = self.model(input_ids=ids, use_cache=False).logits.float()
            hook.remove()
            self._tuple = isinstance(outputs[0], tuple)
            got = self._logits(ids).float()
        if not want.isfinite().all():
            return  # broken weights are reported where they are scored, with the document
        slack = 1e-4 if self.model.dtype == torch.float32 else 2.0**-4
        scale = max(1.0, float(want.abs().max()))
        if not float((want - got).abs().max()) <= slack * scale:
            raise UnsupportedModel(
                f"{type(self.model).__name__}: layers run one by one do not give its logits"
            )

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        captured = self.capture(ids)
        hidden = captured.hidden
        for layer in range(len(self.layers)):
            hidden = self.step(layer, hidden, captured)
        return self.head(hidden.flatten(0, 1)).reshape(*ids.shape, -1)

"""Find the decoder stack of a checkpoint from its tensor names and its layer count.

The first number in a tensor name splits it into a prefix, a layer index and a rest. The
stack is the one group of names, outside image and audio towers, whose indices are exactly
`0 .. N-1`, or `0 .. N-1+M` where the config announces `M` extra prediction layers at the end.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from surgeon.errors import UnsupportedModel
from surgeon.plan import LayerPlan

_TOWER = re.compile(r"vision|visual|audio|image|speech|video|vit\b|talker|code2wav", re.IGNORECASE)
_PREDICTION = re.compile(r"^(?:model\.)?mtp")


@dataclass(frozen=True)
class Stack:
    """Where the decoder layers are.

    Args:
        prefix: what stands before the layer index, for example `model.layers.`.
        depth: decoder layers.
        extra: prediction layers stored behind the decoder layers under the same prefix.
    """

    prefix: str
    depth: int
    extra: int = 0

    def layer_of(self, name: str) -> tuple[int, str] | None:
        """Layer index and the rest of the name (with its dot), or None outside the stack."""
        if not name.startswith(self.prefix):
            return None
        index, dot, rest = name[len(self.prefix) :].partition(".")
        return (int(index), dot + rest) if dot and _is_index(index) else None

    def is_prediction(self, name: str) -> bool:
        """Whether a tensor belongs to multi-token prediction (MTP), not to the decoder."""
        found = self.layer_of(name)
        return bool(_PREDICTION.match(name)) or (found is not None and found[0] >= self.depth)

    def renamed(self, name: str, plan: LayerPlan) -> list[str]:
        """The names a source tensor has after the plan: none if dropped, several if repeated."""
        found = self.layer_of(name)
        if found is None:
            return [name]
        layer, rest = found
        if layer >= self.depth:
            return [f"{self.prefix}{len(plan) + layer - self.depth}{rest}"]
        return [f"{self.prefix}{at}{rest}" for at in plan.positions(layer)]


def _is_index(part: str) -> bool:
    """A layer number as loaders write it: no sign, no leading zero, ASCII digits."""
    return part.isascii() and part.isdecimal() and len(part) <= 5 and part == str(int(part))


def groups(names: Iterable[str]) -> dict[str, set[int]]:
    """Prefix to the set of layer indices found behind it."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        at = next((at for at, part in enumerate(parts[:-1]) if _is_index(part)), None)
        if at is not None:
            found["".join(f"{part}." for part in parts[:at])].add(int(parts[at]))
    return found


def find_stack(names: Iterable[str], count: int | None, extra: int = 0) -> Stack:
    """The decoder stack.

    Args:
        names: all tensor names.
        count: layer count of the config; None where the config leaves it to its class.
        extra: prediction layers the config announces.

    Raises:
        UnsupportedModel: no stack, several, or one that disagrees with the config.
    """
    text = {
        prefix: layers
        for prefix, layers in groups(names).items()
        if not _TOWER.search(prefix) and not _PREDICTION.match(prefix)
    }
    dense = {p: len(s) for p, s in text.items() if s == set(range(len(s)))}
    sizes = {count, count + extra} if count else set(dense.values())
    found = {prefix: size for prefix, size in dense.items() if size in sizes}
    if not found:
        raise UnsupportedModel(_disagreement(text, count))
    if len(found) > 1:
        raise UnsupportedModel(
            f"{len(found)} groups of tensors look like the decoder stack: "
            + ", ".join(f"`{prefix}*`" for prefix in sorted(found))
        )
    prefix, size = next(iter(found.items()))
    depth = count or size
    _refuse_shadow(text, prefix, depth)
    return Stack(prefix, depth, size - depth)


def _disagreement(text: dict[str, set[int]], count: int | None) -> str:
    """Why no group fits, naming the largest one."""
    if not text:
        return "no tensor name carries a layer number, so there is no decoder stack to work on"
    prefix = max(text, key=lambda key: len(text[key]))
    layers = text[prefix]
    numbers = f"{min(layers)}..{max(layers)}"
    if len(layers) != max(layers) + 1:
        return f"layers `{prefix}*` are numbered {numbers}, but only {len(layers)} are there"
    return f"the config says {count} layers, the tensors `{prefix}*` have {len(layers)}"


def _refuse_shadow(text: dict[str, set[int]], prefix: str, depth: int) -> None:
    """Refuse numbered tensors beside the stack that may belong to its layers one by one."""
    for other, layers in text.items():
        if other != prefix and depth > 2 and abs(len(layers) - depth) <= 1:
            raise UnsupportedModel(
                f"`{other}*` has {len(layers)} numbered entries beside the {depth} layers of "
                f"`{prefix}*`: per-layer tensors outside the stack would lose their layers"
            )

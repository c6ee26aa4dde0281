"""`LayerPlan`: which source layer runs at each position of a model.

Written as Python slices of the source stack with open ends: `:11,6:` runs layers 0..10,
then 6 to the last, which is the model with block `6:11` run twice. Plans form a monoid:
`identity` is neutral and `then` is associative.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar, Self

from surgeon.block import Block
from surgeon.errors import UsageError

MAX_LAYERS = 4096

_SLICE = re.compile(r"^(\d{0,5}):(\d{0,5})$|^(\d{1,5})$")


@dataclass(frozen=True)
class LayerPlan:
    """Source layer index per position, and the depth of the source.

    Args:
        depth: number of decoder layers of the source model.
        layers: source layer index at each position, each in `0 .. depth - 1`.

    Example:
        >>> import surgeon
        >>> plan = surgeon.LayerPlan.duplicate(6, surgeon.Block(2, 4))
        >>> str(plan), plan.layers
        (':4,2:', (0, 1, 2, 3, 2, 3, 4, 5))

    Raises:
        UsageError: no layers, too many layers, or an index out of range.
    """

    depth: int
    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("a layer plan needs at least one layer")
        if len(self.layers) > MAX_LAYERS:
            raise UsageError(f"a layer plan of {len(self.layers)} layers is over {MAX_LAYERS}")
        for layer in self.layers:
            if not 0 <= layer < self.depth:
                raise UsageError(
                    f"layer {layer} is out of range: the model has {self.depth} layers "
                    f"(0..{self.depth - 1})"
                )

    @classmethod
    def identity(cls, depth: int) -> Self:
        """Every layer once, in order."""
        return cls(depth, tuple(range(depth)))

    @classmethod
    def duplicate(cls, depth: int, block: Block, times: int = 2) -> Self:
        """The model with `block` run `times` times in a row."""
        return cls.identity(depth).repeat(block, times)

    @classmethod
    def parse(cls, text: str, depth: int) -> Self:
        """Read slices such as `:11,6:`, or single layers such as `0,1,1,2`.

        Raises:
            UsageError: a part is not a slice, is empty, or is out of range.
        """
        layers: list[int] = []
        for part in text.replace(" ", "").split(","):
            found = _SLICE.match(part)
            if not found:
                raise UsageError(
                    f"`{part}` in layer plan `{text}` is not a slice",
                    hint="write a plan as slices, for example :11,6: or 0:4,4,4,4:",
                )
            start, stop, single = found.groups()
            if single is not None:
                run = range(int(single), int(single) + 1)
            else:
                run = range(int(start or 0), int(stop) if stop else depth)
            if not run:
                raise UsageError(f"`{part}` in layer plan `{text}` is empty at depth {depth}")
            if run.stop > depth:
                raise UsageError(
                    f"`{part}` in layer plan `{text}` is out of range: "
                    f"the model has {depth} layers (0..{depth - 1})"
                )
            layers.extend(run)
        return cls(depth, tuple(layers))

    SCHEMA: ClassVar[str] = "surgeon.plan/1"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of a plan that stands alone."""
        return {"schema": self.SCHEMA, "depth": self.depth, "layers": str(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The plan that `to_dict` came from.

        Raises:
            UsageError: another document, or not a plan.
        """
        if not isinstance(data, dict) or set(data) != {"schema", "depth", "layers"}:
            raise UsageError(f"not a {cls.SCHEMA} document")
        if data["schema"] != cls.SCHEMA:
            raise UsageError(f"schema is `{data['schema']}`, expected `{cls.SCHEMA}`")
        if type(data["depth"]) is not int:
            raise UsageError(f"depth is `{data['depth']}`, expected a number")
        return cls.parse(str(data["layers"]), data["depth"])

    def __str__(self) -> str:
        return ",".join(self._slice(run) for run in self.runs())

    def _slice(self, run: range) -> str:
        start = "" if run.start == 0 else str(run.start)
        stop = "" if run.stop == self.depth else str(run.stop)
        return f"{start}:{stop}"

    def __len__(self) -> int:
        return len(self.layers)

    def runs(self) -> list[range]:
        """The plan as maximal runs of consecutive source layers."""
        runs: list[range] = []
        for layer in self.layers:
            if runs and runs[-1].stop == layer:
                runs[-1] = range(runs[-1].start, layer + 1)
            else:
                runs.append(range(layer, layer + 1))
        return runs

    def positions(self, layer: int) -> list[int]:
        """Where a source layer runs, in order; empty if the plan drops it."""
        return [at for at, source in enumerate(self.layers) if source == layer]

    @property
    def is_identity(self) -> bool:
        """Whether every layer runs once, in order."""
        return self.layers == tuple(range(self.depth))

    def repeat(self, block: Block, times: int = 2) -> Self:
        """Run positions `block` of this plan `times` times in a row.

        Raises:
            UsageError: `times` is below 1 or the block is out of range.
        """
        if times < 1:
            raise UsageError(f"times is {times}, expected at least 1")
        block.within(len(self))
        part = self.layers[block.start : block.stop]
        head, tail = self.layers[: block.stop], self.layers[block.stop :]
        return type(self)(self.depth, head + part * (times - 1) + tail)

    def drop(self, block: Block) -> Self:
        """Leave out positions `block` of this plan."""
        block.within(len(self))
        return type(self)(self.depth, self.layers[: block.start] + self.layers[block.stop :])

    def then(self, other: "LayerPlan") -> Self:
        """`other` applied to the model that this plan makes.

        Raises:
            UsageError: `other` is a plan for another depth.
        """
        if other.depth != len(self):
            raise UsageError(
                f"cannot apply a plan for {other.depth} layers to a model of {len(self)} layers"
            )
        return type(self)(self.depth, tuple(self.layers[at] for at in other.layers))

    def apply(self, per_layer: Sequence[Any]) -> list[Any]:
        """A per-layer list of the source, as it reads after the plan."""
        if len(per_layer) != self.depth:
            raise UsageError(f"list has {len(per_layer)} entries for {self.depth} layers")
        return [per_layer[layer] for layer in self.layers]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Records hold a plan as `{"depth": 12, "layers": ":8,4:"}`."""
        from pydantic_core import core_schema as cs

        def build(value: dict[str, Any]) -> "LayerPlan":
            return cls.parse(value["layers"], value["depth"])

        fields = cs.typed_dict_schema(
            {
                "depth": cs.typed_dict_field(cs.int_schema(ge=1, le=MAX_LAYERS)),
                "layers": cs.typed_dict_field(cs.str_schema()),
            },
            extra_behavior="forbid",
        )
        plain = cs.no_info_after_validator_function(build, fields)
        return cs.json_or_python_schema(
            json_schema=plain,
            python_schema=cs.union_schema([cs.is_instance_schema(cls), plain]),
            serialization=cs.plain_serializer_function_ser_schema(
                lambda plan: {"depth": plan.depth, "layers": str(plan)}, return_schema=fields
            ),
        )


def repeat_blocks(depth: int, blocks: Sequence[Block], times: int = 2) -> LayerPlan:
    """The model with each of several disjoint source blocks run `times` times.

    Raises:
        UsageError: two blocks overlap, or one is out of range.
    """
    ordered = sorted(blocks)
    for left, right in pairwise(ordered):
        if right.start < left.stop:
            raise UsageError(
                f"blocks `{left}` and `{right}` overlap",
                hint="give the exact order with --layers instead",
            )
    # From the last block to the first, so that earlier positions stay source positions.
    return reduce(
        lambda plan, block: plan.repeat(block.within(depth), times),
        reversed(ordered),
        LayerPlan.identity(depth),
    )

"""`Block`: a half-open range of decoder layers, 0-based, written `6:11` (layers 6..10)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from surgeon.errors import UsageError

_PATTERN = r"^(\d{1,5}):(\d{1,5})$"


@dataclass(frozen=True, order=True)
class Block:
    """Layers `start` .. `stop - 1`; never empty.

    Example:
        >>> import surgeon
        >>> surgeon.Block.parse("6:11").layers
        range(6, 11)

    Raises:
        UsageError: `start` is negative or not below `stop`.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise UsageError(
                f"block `{self.start}:{self.stop}` is empty or negative",
                hint="a block is START:STOP with START < STOP; 6:11 means layers 6..10",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `6:11`.

        Raises:
            UsageError: the text is not two numbers with a colon, or the range is empty.
        """
        found = re.match(_PATTERN, text.strip())
        if not found:
            raise UsageError(
                f"`{text}` is not a block",
                hint="write a block as START:STOP, for example 6:11 for layers 6..10",
            )
        return cls(int(found[1]), int(found[2]))

    SCHEMA: ClassVar[str] = "surgeon.block/1"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of a block that stands alone; inside a record it is its text."""
        return {"schema": self.SCHEMA, "block": str(self)}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The block that `to_dict` came from.

        Raises:
            UsageError: another document, or not a block.
        """
        if not isinstance(data, dict) or set(data) != {"schema", "block"}:
            raise UsageError(f"not a {cls.SCHEMA} document")
        if data["schema"] != cls.SCHEMA:
            raise UsageError(f"schema is `{data['schema']}`, expected `{cls.SCHEMA}`")
        return cls.parse(str(data["block"]))

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}"

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def layers(self) -> range:
        """The layer indices, in order."""
        return range(self.start, self.stop)

    def within(self, depth: int) -> Self:
        """The block itself if it fits into `depth` layers.

        Raises:
            UsageError: it does not fit.
        """
        if self.stop > depth:
            raise UsageError(
                f"block `{self}` is out of range: the model has {depth} layers (0..{depth - 1})"
            )
        return self

    def distance(self, other: "Block") -> int:
        """How many layers the two blocks differ by: the larger of the two end differences."""
        return max(abs(self.start - other.start), abs(self.stop - other.stop))

    def neighbours(self, depth: int) -> list["Block"]:
        """Blocks one step away: shifted by one layer, or one end moved by one layer."""
        moves = [(-1, -1), (1, 1), (-1, 0), (1, 0), (0, -1), (0, 1)]
        ends = [(self.start + a, self.stop + b) for a, b in moves]
        return [Block(a, b) for a, b in ends if 0 <= a < b <= depth]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Records hold a block as its text."""
        from pydantic_core import core_schema

        text = core_schema.no_info_after_validator_function(
            cls.parse, core_schema.str_schema(pattern=_PATTERN)
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.to_string_ser_schema(),
        )


def all_blocks(depth: int, sizes: Iterable[int]) -> list[Block]:
    """Every block of the given sizes in a model of `depth` layers, by size, then start."""
    return [
        Block(start, start + size)
        for size in sorted(set(sizes))
        for start in range(depth - size + 1)
    ]

"""What a sweep tries: repeats of blocks, alone or several at once.

Written `4:8` (run twice), `4:8 x3` (three times), `4:8 each` (every layer of the block
twice in place: 4,4,5,5,..), `4:8 + 9:12` (both).
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Annotated

from pydantic import Field

from surgeon.block import Block, all_blocks
from surgeon.errors import UsageError
from surgeon.plan import LayerPlan
from surgeon.record import Record

MOST_CANDIDATES = 4096
"""More plans than anyone waits for; a wrong range is caught before anything is loaded."""


class Repeat(Record):
    """One block run `times` times; with `each`, every layer of it by itself, in place."""

    block: Block
    times: Annotated[int, Field(ge=2)] = 2
    each: bool = False

    @property
    def added(self) -> int:
        """Layers that it adds."""
        return len(self.block) * (self.times - 1)

    def on(self, plan: LayerPlan) -> LayerPlan:
        """The plan with the positions of the block repeated.

        Raises:
            UsageError: the block is out of range.
        """
        if not self.each:
            return plan.repeat(self.block, self.times)
        self.block.within(len(plan))
        # From the last layer to the first, so that earlier positions stay where they are.
        return reduce(
            lambda made, at: made.repeat(Block(at, at + 1), self.times),
            reversed(self.block.layers),
            plan,
        )

    def __str__(self) -> str:
        times = f" x{self.times}" if self.times != 2 else ""
        return f"{self.block}{' each' if self.each else ''}{times}"


class Candidate(Record):
    """A model to measure: disjoint repeats of blocks of the base; none is the base itself."""

    moves: tuple[Repeat, ...] = ()

    @property
    def added(self) -> int:
        """Layers that it adds to the base."""
        return sum(move.added for move in self.moves)

    @property
    def block(self) -> Block | None:
        """The block, if it is one block run twice."""
        if len(self.moves) == 1 and self.moves[0] == Repeat(block=self.moves[0].block):
            return self.moves[0].block
        return None

    def plan(self, depth: int) -> LayerPlan:
        """Its layer plan for a base of `depth` layers.

        Raises:
            UsageError: a block is out of range.
        """
        ordered = sorted(self.moves, key=lambda move: move.block, reverse=True)
        return reduce(lambda plan, move: move.on(plan), ordered, LayerPlan.identity(depth))

    def overlaps(self, move: Repeat) -> bool:
        """Whether a block of it shares a layer with another one."""
        new = move.block
        return any(m.block.start < new.stop and new.start < m.block.stop for m in self.moves)

    def with_move(self, move: Repeat) -> "Candidate":
        """Both together, blocks in order."""
        return Candidate(moves=tuple(sorted((*self.moves, move), key=lambda each: each.block)))

    def __str__(self) -> str:
        return " + ".join(map(str, self.moves)) or "base"


def grid(
    depth: int, sizes: Sequence[int] | None, times: Iterable[int] = (2,), each: bool = False
) -> list[Candidate]:
    """Every block of the given sizes, with every number of repeats.

    Args:
        depth: layers of the base.
        sizes: block sizes in layers; None for every block there is.
        times: how often a block runs; 1 is the base and adds nothing.
        each: also every block with its layers repeated one by one, in place.

    Raises:
        UsageError: no block of such a size, fewer than one repeat, or too many candidates.
    """
    wanted = sorted(set(times))
    if not wanted or wanted[0] < 1:
        raise UsageError(f"times {list(wanted)}: expected numbers of at least 1")
    blocks = all_blocks(depth, range(1, depth + 1) if sizes is None else sizes)
    repeated = [count for count in wanted if count > 1]
    if not blocks or not repeated:
        raise UsageError(
            f"nothing to measure: sizes {list(sizes or [])}, times {wanted}, {depth} layers"
        )
    found = [Repeat(block=block, times=count) for count in repeated for block in blocks]
    if each:
        # A block of one layer repeated in place is the block repeated.
        found += [
            Repeat(block=block, times=count, each=True)
            for count in repeated
            for block in blocks
            if len(block) > 1
        ]
    if len(found) > MOST_CANDIDATES:
        raise UsageError(
            f"{len(found)} candidates; at most {MOST_CANDIDATES} are measured at a time",
            hint="give a range of sizes instead of all blocks, or fewer repeats",
        )
    return [Candidate(moves=(move,)) for move in found]

"""What a second pass of a block over its own output does: sums for the equilibrium score."""

from collections import defaultdict

import torch
from torch import Tensor

from surgeon.block import Block
from surgeon.probing.capture import Captured
from surgeon.stats import BlockStats


class SecondPass:
    """Collects, block by block, how f(f(x)) relates to f(x) and x.

    An instance is a `plans.Watcher`. Ratios are means over tokens; CKA is taken within
    each batch and averaged by tokens. Sums are float64.
    """

    def __init__(self) -> None:
        self._sums: dict[Block, Tensor] = defaultdict(lambda: torch.zeros(4, dtype=torch.float64))

    def __call__(self, block: Block, item: Captured, x: Tensor, y: Tensor, z: Tensor) -> None:
        """Add one batch: x, y = f(x) and z = f(y), each (B, T, D)."""
        x, y, z = (state.reshape(-1, state.shape[-1]).float() for state in (x, y, z))
        first, second = (y - x).norm(dim=1), (z - y).norm(dim=1)  # (tokens,)
        contraction = (second / first.clamp(min=1e-12)).double().sum()
        activity = (first / x.norm(dim=1).clamp(min=1e-12)).double().sum()
        tokens = float(len(x))
        row = [contraction.item(), activity.item(), tokens * linear_cka(y, z), tokens]
        self._sums[block] += torch.tensor(row, dtype=torch.float64)

    def stats(self, depth: int) -> BlockStats:
        """The means over everything that was added."""
        names = ("contraction", "activity", "compatibility")
        return BlockStats(
            depth,
            {
                name: {block: float(row[at] / row[3]) for block, row in self._sums.items()}
                for at, name in enumerate(names)
            },
        )


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two (n, D) feature matrices, in 0..1.

    Kornblith et al., arXiv 1905.00414, section 3. Two constant matrices are alike: 1.
    """
    x, y = (state - state.mean(dim=0) for state in (x, y))
    one, two = x @ x.T, y @ y.T
    scale = one.norm().double() * two.norm().double()
    return float((one * two).double().sum() / scale) if scale > 0 else 1.0

"""Prompts as batches without padding.

Either several prompts behind each other in one row, kept apart by the model's own
block-diagonal mask (it recognises position ids that restart), or prompts of equal length
as the rows of one batch. No padding token exists, so none can enter a mean.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids of some prompts, and which tokens are whose.

    Args:
        ids: (B, T) token ids.
        positions: (B, T) position of each token in its own prompt.
        prompts: index of each prompt, in the order of their tokens when rows are laid
            end to end.
        lengths: tokens of each of these prompts.
    """

    ids: Tensor
    positions: Tensor
    prompts: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def packed(self) -> bool:
        """Whether one row holds several prompts."""
        return len(self.ids) == 1 and len(self.prompts) > 1

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each prompt in the flattened (B * T) tokens."""
        ends, at = [], 0
        for length in self.lengths:
            ends.append((at, at + length))
            at += length
        return ends

    def owners(self) -> Tensor:
        """(B * T,) which of `prompts`, by place, each flattened token belongs to."""
        places = torch.arange(len(self.prompts), device=self.ids.device)
        lengths = torch.tensor(self.lengths, device=self.ids.device)
        return places.repeat_interleave(lengths)

    def last(self) -> Tensor:
        """(prompts,) index of each prompt's last token in the flattened tokens."""
        return torch.tensor(self.lengths, device=self.ids.device).cumsum(0) - 1

    def means(self, hidden: Tensor, skip: int = 0) -> Tensor:
        """(prompts, D) float32 mean over each prompt's tokens of (B, T, D) hidden states.

        Args:
            hidden: in any dtype; summed in float32.
            skip: leading positions of each prompt to leave out, if the prompt is longer.
        """
        flat = hidden.reshape(-1, hidden.shape[-1]).float()  # (B * T, D)
        counts = torch.tensor(self.lengths, device=flat.device)
        if skip:
            drop = torch.where(counts > skip, skip, 0)
            kept = self.positions.reshape(-1) >= drop[self.owners()]
            flat, counts = flat * kept[:, None], counts - drop
        sums = flat.new_zeros(len(self.prompts), flat.shape[-1])
        sums.index_add_(0, self.owners(), flat)
        return sums / counts[:, None]


def pack(sequences: Sequence[Sequence[int]], budget: int, device: str = "cpu") -> list[Batch]:
    """One row per batch, filled with whole prompts in order up to `budget` tokens.

    A prompt longer than the budget gets a row of its own.
    """
    rows: list[list[int]] = []
    used = 0
    for index, ids in enumerate(sequences):
        if not rows or used + len(ids) > budget:
            rows.append([])
            used = 0
        rows[-1].append(index)
        used += len(ids)
    return [_row(sequences, row, device) for row in rows]


def _row(sequences: Sequence[Sequence[int]], row: Sequence[int], device: str) -> Batch:
    flat = [token for index in row for token in sequences[index]]
    positions = [at for index in row for at in range(len(sequences[index]))]
    return Batch(
        ids=torch.tensor([flat], device=device),
        positions=torch.tensor([positions], device=device),
        prompts=tuple(row),
        lengths=tuple(len(sequences[index]) for index in row),
    )


def group(sequences: Sequence[Sequence[int]], budget: int, device: str = "cpu") -> list[Batch]:
    """Prompts of equal length stacked as rows, up to `budget` tokens a batch.

    For architectures whose mask cannot keep packed prompts apart.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(sequences):
        by_length[len(ids)].append(index)
    batches = []
    for length, indices in sorted(by_length.items()):
        rows = max(1, budget // length)
        for start in range(0, len(indices), rows):
            batches.append(_stack(sequences, indices[start : start + rows], device))
    return batches


def _stack(sequences: Sequence[Sequence[int]], rows: Sequence[int], device: str) -> Batch:
    ids = torch.tensor([list(sequences[index]) for index in rows], device=device)
    return Batch(
        ids=ids,
        positions=torch.arange(ids.shape[1], device=device).expand_as(ids),
        prompts=tuple(rows),
        lengths=(ids.shape[1],) * len(rows),
    )

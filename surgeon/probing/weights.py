"""Tensors of a checkpoint as views of memory-mapped files: nothing is read until it is used.

A view costs address space only. Pages that a computation touched count as resident memory
until `release` tells the kernel to drop them; the page cache may keep them for the next
reader.
"""

import mmap
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from surgeon.checkpoint.header import Tensor as Entry
from surgeon.checkpoint.store import Checkpoint

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Stored dtypes that can be streamed as they are."""

_PAGE = mmap.PAGESIZE


class WeightFiles:
    """The tensors of a checkpoint by name, memory-mapped read-only.

    Args:
        checkpoint: an opened checkpoint; its headers say where every tensor is.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._maps: dict[str, mmap.mmap] = {}
        self._places: dict[str, tuple[str, int, Entry]] = {}
        for file, header in checkpoint.headers.items():
            with header.path.open("rb") as handle:
                self._maps[file] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            for entry in header.tensors:
                self._places[entry.name] = (file, header.payload + entry.start, entry)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def entry(self, name: str) -> Entry:
        """What the header says about a tensor."""
        return self._places[name][2]

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._places.keys()

    def view(self, name: str) -> Tensor:
        """The tensor in its stored dtype, read-only, without copying."""
        file, offset, entry = self._places[name]
        dtype = TORCH_DTYPES[entry.dtype]
        if entry.numel == 0:
            return torch.empty(entry.shape, dtype=dtype)
        with warnings.catch_warnings():
            # The map is read-only and so is every use of the view.
            warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
            flat = torch.frombuffer(self._maps[file], dtype=dtype, count=entry.numel, offset=offset)
        return flat.view(entry.shape)

    def release(self, names: Iterable[str]) -> None:
        """Drop the pages of these tensors from this process's memory."""
        self._advise(names, mmap.MADV_DONTNEED)

    def prefetch(self, names: Iterable[str]) -> None:
        """Ask the kernel to read these tensors into the page cache in the background."""
        self._advise(names, mmap.MADV_WILLNEED)

    def _advise(self, names: Iterable[str], advice: int) -> None:
        for name in names:
            file, offset, entry = self._places[name]
            start = offset // _PAGE * _PAGE
            if entry.nbytes:
                self._maps[file].madvise(advice, start, offset - start + entry.nbytes)

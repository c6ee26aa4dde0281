"""How token requests become batches: one row per distinct input, or one row per context.

A request is a context and a continuation whose log-likelihood is wanted. Requests that
need the same input tokens share a row, as in lm-eval. With packing, all continuations of
one context go into one row behind it: a mask keeps each from seeing the others and their
positions all start where the context ends, so the context runs once per document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """Score `continuation` after `context`; both token ids, neither empty."""

    context: Tokens
    continuation: Tokens


@dataclass
class Row:
    """One input row and what to read from it.

    `tokens` are the input ids. `reads` maps each request to the positions whose next-token
    distribution gives its continuation's tokens. `branches` are `(start, stop)` ranges of
    packed continuations behind the first `trunk` tokens; empty where the row is causal.
    """

    tokens: list[int]
    trunk: int
    reads: dict[Request, list[int]] = field(default_factory=dict)
    branches: list[tuple[int, int]] = field(default_factory=list)


def truncated(request: Request, longest: int) -> Tokens:
    """Input ids of a request alone: the last token is only predicted, the left is cut.

    The same cut as lm-eval's `HFLM`: the last `longest + 1` tokens, without the last.
    """
    return (request.context + request.continuation)[-(longest + 1) :][:-1]


def plain_rows(requests: Sequence[Request], longest: int) -> list[Row]:
    """One row per distinct input; single-token continuations of one context share it."""
    rows: dict[Tokens, Row] = {}
    for request in requests:
        tokens = truncated(request, longest)
        row = rows.setdefault(tokens, Row(list(tokens), len(tokens)))
        first = len(tokens) - len(request.continuation)
        row.reads[request] = list(range(first, len(tokens)))
    return list(rows.values())


def packed_rows(requests: Sequence[Request], longest: int, widest: int) -> list[Row]:
    """One row per context with all its continuations; plain rows where that cannot be.

    Args:
        requests: distinct.
        longest: longest input of the model. Beyond it, the left is cut, and differently for
            each continuation.
        widest: widest packed row; below `longest` where attention has a window, since a
            packed row's mask takes the place of the model's own.
    """
    groups: dict[Tokens, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.context, []).append(request)
    rows: list[Row] = []
    for context, group in groups.items():
        extra = sum(len(request.continuation) - 1 for request in group)
        if len(context) + extra > min(longest, widest):
            rows.extend(plain_rows(group, longest))
        else:
            rows.append(_packed(context, group))
    return rows


def _packed(context: Tokens, group: Sequence[Request]) -> Row:
    row = Row(list(context), len(context))
    seen: dict[Tokens, int] = {}
    for request in group:
        body = request.continuation[:-1]
        if body and body not in seen:
            seen[body] = len(row.tokens)
            row.branches.append((len(row.tokens), len(row.tokens) + len(body)))
            row.tokens.extend(body)
        start = seen.get(body, 0)
        row.reads[request] = [len(context) - 1, *range(start, start + len(body))]
    if len(row.branches) == 1:
        # One branch directly behind its context is an ordinary causal row.
        row.branches.clear()
    return row


def batches(rows: Sequence[Row], most_rows: int, most_tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length together, longest first, within a budget of padded tokens.

    Packed and causal rows never share a batch: a packed batch brings a mask of its own, and
    a causal row keeps the model's. The order depends on the rows alone, so a rerun gives
    the same batches.
    """
    for packed in (True, False):
        kind = [row for row in rows if bool(row.branches) == packed]
        order = sorted(kind, key=lambda row: (-len(row.tokens), row.tokens))
        start = 0
        while start < len(order):
            width = len(order[start].tokens)
            count = max(1, min(most_rows, most_tokens // width))
            yield order[start : start + count]
            start += count

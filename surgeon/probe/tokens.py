"""Prompts as token ids: refused when empty, cut when too long, and the cut is stated."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from surgeon.errors import UsageError

MAX_TOKENS = 256
"""Tokens kept of a prompt, as in the reference program."""


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
    vocabulary: int | None = None,
) -> tuple[list[list[int]], list[str]]:
    """Token ids of every prompt, with the special tokens the tokenizer adds.

    Args:
        tokenizer: the model's.
        texts: the prompts.
        max_tokens: longer prompts are cut at the end.
        vocabulary: number of embeddings; ids at or above it are refused.

    Returns:
        The ids, and notes on what was cut.

    Raises:
        UsageError: no prompts, a prompt without tokens, or ids the model does not have.
    """
    if not texts:
        raise UsageError("there are no prompts")
    if max_tokens < 1:
        raise UsageError(f"max tokens is {max_tokens}, expected at least 1")
    ids, cut = [], 0
    for at, text in enumerate(texts):
        row = list(tokenizer(text)["input_ids"])
        if not text.strip() or not row:
            raise UsageError(
                f"prompt {at} is empty: {text[:20]!r}", hint="leave out prompts without words"
            )
        if vocabulary is not None and max(row) >= vocabulary:
            raise UsageError(
                f"prompt {at} has token id {max(row)}, the model has {vocabulary} embeddings",
                hint="the tokenizer does not belong to this model",
            )
        cut += len(row) > max_tokens
        ids.append(row[:max_tokens])
    notes = [f"{cut} of {len(ids)} prompts were cut to {max_tokens} tokens"] if cut else []
    return ids, notes

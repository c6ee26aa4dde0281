"""Prompts as token ids: refused when empty, cut when too long, and the cut is stated."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from surgeon.errors import UsageError

MAX_TOKENS = 256
"""Tokens kept of a prompt, as in the reference program."""


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
    vocabulary: int | None = None,
    chat_template: bool = False,
) -> tuple[list[list[int]], list[str]]:
    """Token ids of every prompt, with the special tokens the tokenizer adds.

    Args:
        tokenizer: the model's.
        texts: the prompts.
        max_tokens: longer prompts are cut at the end.
        vocabulary: number of embeddings; ids at or above it are refused.
        chat_template: write each prompt as a user turn, followed by the start of an answer.

    Returns:
        The ids, and notes on what was cut.

    Raises:
        UsageError: no prompts, a prompt without tokens, ids the model does not have, or a
            tokenizer without a chat template.
    """
    if not texts:
        raise UsageError("there are no prompts")
    if max_tokens < 1:
        raise UsageError(f"max tokens is {max_tokens}, expected at least 1")
    if chat_template and not tokenizer.chat_template:
        raise UsageError("the tokenizer has no chat template", hint="leave out --chat-template")
    # Long prompts are cut below, and the cut is reported; the library's warning is noise.
    transformers_logging.set_verbosity_error()
    rows = [_row(tokenizer, at, text, chat_template) for at, text in enumerate(texts)]
    if vocabulary is not None:
        _refuse_foreign(rows, vocabulary)
    cut = sum(len(row) > max_tokens for row in rows)
    notes = [f"{cut} of {len(rows)} prompts were cut to {max_tokens} tokens"] if cut else []
    return [row[:max_tokens] for row in rows], notes


def _row(tokenizer: PreTrainedTokenizerBase, at: int, text: str, chat: bool) -> list[int]:
    if chat:
        turn = [{"role": "user", "content": text}]
        written = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        row = list(tokenizer(written, add_special_tokens=False)["input_ids"])
    else:
        row = list(tokenizer(text)["input_ids"])
    if not text.strip() or not row:
        raise UsageError(
            f"prompt {at} has no tokens: {text[:20]!r}", hint="leave out prompts without words"
        )
    return row


def _refuse_foreign(rows: Sequence[Sequence[int]], vocabulary: int) -> None:
    for at, row in enumerate(rows):
        if max(row) >= vocabulary:
            raise UsageError(
                f"prompt {at} has token id {max(row)}, the model has {vocabulary} embeddings",
                hint="the tokenizer does not belong to this model",
            )

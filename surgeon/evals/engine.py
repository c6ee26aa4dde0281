"""Log-likelihoods of token requests under many layer plans of one model, in one pass.

Per batch the model's own preparation runs once (`layerwise.py`), the plans run through the
layer trie (`trie.py`), and only positions that predict a continuation token reach the
head. Softmax is in float32 whatever the model computes in: in bfloat16 a log-probability
near -30 has steps of 0.125, which makes ties between choices.

Results do not depend on which plans are asked for together; the tests compare them with
separately built models.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from surgeon.errors import SurgeonError, UnsupportedModel, UsageError
from surgeon.evals.layout import Request, Row, batches, packed_rows, plain_rows, truncated
from surgeon.evals.trie import LayerTrie
from surgeon.layerwise import LayerRunner
from surgeon.models import plan_view
from surgeon.plan import LayerPlan

Key = TypeVar("Key", bound=Hashable)
Reader = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MEMORY = 2**30
"""Bytes for hidden states and what is computed from them, where no budget is given."""

MOST_TOKENS = 8192
"""Padded tokens of a batch; larger batches are not faster."""

STATES = 12
"""Hidden states that a batch may need at once; a trie of n nodes needs about log2(n)."""

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Config names of a bounded attention span, in tokens."""


@dataclass(frozen=True)
class Scores:
    """What one plan says about each request, in the order asked.

    `loglikelihood` in nats, float64 (requests,); `greedy`: whether every token of the
    continuation is the most likely one.
    """

    loglikelihood: NDArray[np.float64]
    greedy: NDArray[np.bool_]


@dataclass
class Cost:
    """Work done, and what the same answers cost with each plan run alone by lm-eval."""

    layer_forwards: int = 0
    layer_forwards_alone: int = 0
    layer_tokens: int = 0
    layer_tokens_alone: int = 0
    batches: int = 0
    most_states: int = 0


class Engine:
    """Scores requests under layer plans of one model.

    Args:
        model: loaded, in eval mode.
        pack: run all continuations of a context in one row where that is exact.
        batch_size: most rows of a batch.
        memory: bytes that hidden states and what is computed from them may take; decides how
            many tokens a batch holds. None is a gibibyte, or what one row needs if that is more.
        max_length: longest input in tokens, or None for the model's own limit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pack: bool = True,
        batch_size: int = 256,
        memory: int | None = None,
        max_length: int | None = None,
    ):
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        self.depth: int = self.config.num_hidden_layers
        self.batch_size, self.memory = batch_size, memory
        self.max_length = max_length or longest_input(self.config)
        self.cost = Cost()
        self.runner: LayerRunner | None = None
        self.notes: list[str] = []
        try:
            runner = LayerRunner(model)
            runner.require_same_logits()
            self.runner = runner
        except UnsupportedModel as error:
            self.notes.append(f"no layers are shared between plans: {error}")
        self.pack = pack and self.runner is not None and self._packs()

    def score(
        self,
        requests: Sequence[Request],
        plans: Mapping[Key, LayerPlan],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Key, Scores]:
        """Score every request under every plan.

        Args:
            requests: repeated requests are computed once.
            plans: plan per name.
            progress: called with (requests done, requests in all) after each batch.

        Raises:
            UsageError: the longest request does not fit into the memory.
            SurgeonError: an empty or over-long continuation, or a log-likelihood that is
                not finite.
        """
        index = {request: at for at, request in enumerate(dict.fromkeys(requests))}
        self._require_scorable(index)
        blank = Scores(np.zeros(len(index)), np.zeros(len(index), dtype=np.bool_))
        found = {name: Scores(blank.loglikelihood.copy(), blank.greedy.copy()) for name in plans}
        trie = LayerTrie(plans)
        rows = self._rows(list(index))
        self._count(trie, rows, index)
        done = 0
        with torch.inference_mode():
            for batch in batches(rows, self.batch_size, self._batch_tokens(rows)):
                self._batch(batch, plans, trie, index, found)
                done += sum(len(row.reads) for row in batch)
                if progress:
                    progress(done, len(index))
        at = np.array([index[request] for request in requests], dtype=np.int64)
        answers = {n: Scores(s.loglikelihood[at], s.greedy[at]) for n, s in found.items()}
        for name, scores in answers.items():
            require_finite(str(name), scores.loglikelihood)
        return answers

    def _require_scorable(self, requests: Mapping[Request, int]) -> None:
        for request in requests:
            if not request.context or not request.continuation:
                raise SurgeonError("a request has no tokens in its context or its continuation")
            if len(request.continuation) > self.max_length:
                raise SurgeonError(
                    f"a continuation of {len(request.continuation)} tokens does not fit into "
                    f"the model's {self.max_length}"
                )

    def _rows(self, requests: Sequence[Request]) -> list[Row]:
        if not self.pack:
            return plain_rows(requests, self.max_length)
        spans = [getattr(self.config, name, None) for name in WINDOWS]
        window = min([span for span in spans if isinstance(span, int)], default=self.max_length)
        return packed_rows(requests, self.max_length, window)

    def _batch_tokens(self, rows: Sequence[Row]) -> int:
        """How many padded tokens of the longest row's length fit into the memory.

        It does not depend on the plans, so neither do the batches, nor any last bit.
        """
        longest = max((len(row.tokens) for row in rows), default=1)
        width: int = self.config.hidden_size
        heads: int = getattr(self.config, "num_attention_heads", 1)
        inner: int = getattr(self.config, "intermediate_size", None) or 4 * width
        # Activations of a layer in float32: attention and its mask, projections, gated MLP.
        layer = 4 * ((heads + 1) * longest + 8 * width + 3 * inner)
        token = layer + STATES * width * self.model.dtype.itemsize
        if self.memory is not None and self.memory < longest * token:
            raise UsageError(
                f"{self.memory / 2**20:,.0f} MiB are not enough for a document of {longest} "
                f"tokens; it needs about {longest * token / 2**20:,.0f} MiB",
                hint="give more with --memory",
            )
        return max(longest, min(MOST_TOKENS, (self.memory or MEMORY) // token))

    def _count(
        self, trie: LayerTrie[Key], rows: Sequence[Row], requests: Mapping[Request, int]
    ) -> None:
        alone = {truncated(request, self.max_length) for request in requests}
        nodes = trie.nodes if self.runner else trie.naive
        self.cost.layer_tokens += nodes * sum(len(row.tokens) for row in rows)
        self.cost.layer_tokens_alone += trie.naive * sum(map(len, alone))

    def _batch(
        self,
        batch: list[Row],
        plans: Mapping[Key, LayerPlan],
        trie: LayerTrie[Key],
        index: Mapping[Request, int],
        found: Mapping[Key, Scores],
    ) -> None:
        targets = _Targets(batch, index, self.model.device)
        ids, extra = self._inputs(batch)
        self.cost.batches += 1
        self.cost.layer_forwards_alone += trie.naive
        if self.runner is None:
            self.cost.layer_forwards += trie.naive
            for name, plan in plans.items():
                logits = plan_view(self.model, plan)(input_ids=ids, use_cache=False).logits
                self._read(targets, partial(_pick, logits), found[name])
            return
        runner = self.runner
        captured = runner.capture(ids, **extra)

        def arrive(name: Key, hidden: torch.Tensor) -> None:
            def read(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
                return runner.head(hidden[rows.to(hidden.device), columns.to(hidden.device)])

            self._read(targets, read, found[name])

        most = trie.walk(
            captured.hidden, lambda layer, hidden: runner.step(layer, hidden, captured), arrive
        )
        self.cost.layer_forwards += trie.nodes
        self.cost.most_states = max(self.cost.most_states, most)

    def _inputs(self, batch: list[Row]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Token ids (B, T) padded on the right, and mask and positions where rows are packed.

        Causal rows need no mask: nothing looks to the right, and pads are never read.
        """
        width = len(batch[0].tokens)
        device = self.model.device
        ids = torch.tensor([row.tokens + [0] * (width - len(row.tokens)) for row in batch])
        if not any(row.branches for row in batch):
            return ids.to(device), {}
        positions = torch.arange(width).repeat(len(batch), 1)
        allowed = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(batch), 1, 1)
        for at, row in enumerate(batch):
            for start, stop in row.branches:
                allowed[at, start:stop, row.trunk : start] = False
                positions[at, start:stop] = torch.arange(row.trunk, row.trunk + stop - start)
            positions[at, len(row.tokens) :] = 0
        low = torch.finfo(self.model.dtype).min
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype).masked_fill_(~allowed, low)
        extra = {"attention_mask": mask[:, None].to(device), "position_ids": positions.to(device)}
        return ids.to(device), extra

    def _read(self, targets: "_Targets", reader: Reader, into: Scores) -> None:
        """Sum log-probabilities of the target tokens per request, in float64."""
        # Logits (positions, vocabulary) in float32 and their softmax take a quarter of it.
        chunk = max(1, (self.memory or MEMORY) // (32 * self.config.vocab_size))
        logp, hits = [], []
        for start in range(0, len(targets.tokens), chunk):
            part = slice(start, start + chunk)
            logits = reader(targets.rows[part], targets.columns[part]).float()  # (S, V)
            tokens = targets.tokens[part].to(logits.device)
            own = logits.gather(1, tokens[:, None])[:, 0]
            logp.append((own - logits.logsumexp(-1)).cpu().numpy())
            hits.append((logits.argmax(-1) == tokens).cpu().numpy())
        sums = np.bincount(targets.owner, np.concatenate(logp), minlength=len(targets.requests))
        missed = np.bincount(targets.owner, ~np.concatenate(hits), minlength=len(targets.requests))
        into.loglikelihood[targets.requests] = sums
        into.greedy[targets.requests] = missed == 0

    def _packs(self) -> bool:
        """Whether a packed row gives this model's own answers: tried, not assumed.

        Attention that builds its mask from positions of its own (ALiBi), or kernels that
        take no mask, differ at once on this example.
        """
        if "position_ids" not in inspect.signature(self.model.forward).parameters:
            return False
        if self.config._attn_implementation not in ("sdpa", "eager"):
            return False
        ids = [at % self.config.vocab_size for at in range(1, 10)]
        requests = [Request(tuple(ids[:4]), tuple(part)) for part in (ids[4:6], ids[6:9], ids[:3])]
        plans = {"own": LayerPlan.identity(self.depth)}
        slack = 1e-3 if self.model.dtype == torch.float32 else 0.25
        answers = []
        try:
            for self.pack in (False, True):
                answers.append(self.score(requests, plans)["own"].loglikelihood)
        except SurgeonError:
            return False  # weights that are not finite fail again, with a message, when scored
        finally:
            self.cost = Cost()
        return bool(np.abs(answers[0] - answers[1]).max() <= slack)


class _Targets:
    """Where a batch's continuation tokens are predicted: flat index tensors (S,)."""

    def __init__(self, batch: list[Row], index: Mapping[Request, int], device: torch.device):
        rows: list[int] = []
        columns: list[int] = []
        tokens: list[int] = []
        owner: list[int] = []
        self.requests: list[int] = []
        for at, row in enumerate(batch):
            for request, places in row.reads.items():
                rows.extend([at] * len(places))
                columns.extend(places)
                tokens.extend(request.continuation)
                owner.extend([len(self.requests)] * len(places))
                self.requests.append(index[request])
        self.rows, self.columns, self.tokens = (
            torch.tensor(values, device=device) for values in (rows, columns, tokens)
        )
        self.owner = np.array(owner)


def _pick(logits: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return logits[rows, columns]


def longest_input(config: Any) -> int:
    """The longest input a model's config allows, in tokens, read as lm-eval reads it."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return 2048


def require_finite(name: str, values: NDArray[np.float64]) -> None:
    """Raise if a log-likelihood is NaN or infinite; an arg-max over NaN looks like an answer.

    Raises:
        SurgeonError: a value is not finite.
    """
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise SurgeonError(
            f"{bad} of {len(values)} log-likelihoods of `{name}` are not finite",
            hint="the weights or the dtype are broken; try `--dtype float32`",
        )

"""Two checkpoints ready to answer the same documents.

Where the candidate is, byte for byte, a layer plan of the base, one copy of the weights
serves both and they share their layer prefixes. Otherwise each is loaded and runs alone.
The answers are the same either way.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from surgeon.checkpoint.store import read_config
from surgeon.errors import SurgeonError
from surgeon.evals.backends import Backend, EngineBackend, PlainBackend
from surgeon.evals.evaltask import EvalTask
from surgeon.evals.harness import build, lm_of, vllm_of
from surgeon.evals.identity import plan_between
from surgeon.evals.rows import Rows
from surgeon.evals.stream import Drawn
from surgeon.models import choose_device, choose_dtype, load_model, load_tokenizer, stored_dtype
from surgeon.plan import LayerPlan

BackendName = Literal["engine", "hf", "vllm"]
Progress = Callable[[int, int], None]


class Answers(NamedTuple):
    """Rows of base and candidate for the same documents, in drawn order."""

    base: Rows
    candidate: Rows


@dataclass(frozen=True)
class Side:
    """One model: what answers for it, and the plan it runs there."""

    backend: Backend
    plan: LayerPlan


class Pair:
    """A base and a candidate, loaded.

    Args:
        base: what answers for the base.
        candidate: what answers for the candidate; shares the base's backend where one copy
            of the weights serves both.
        how: one sentence on which of the two it is, and why.
        plan: the plan that makes the candidate from the base, where that is proven.
        dtype: what is computed in.
        device: where.
    """

    def __init__(
        self,
        base: Side,
        candidate: Side,
        *,
        how: str,
        plan: LayerPlan | None,
        dtype: str,
        device: str,
    ):
        self.base, self.candidate = base, candidate
        self.how, self.plan, self.dtype, self.device = how, plan, dtype, device

    @property
    def shared(self) -> bool:
        """Whether one copy of the weights serves both."""
        return self.base.backend is self.candidate.backend

    @property
    def costs(self) -> list[Any]:
        """What the engines have done."""
        backends = [self.base.backend] if self.shared else [s.backend for s in self._sides]
        return [each.engine.cost for each in backends if isinstance(each, EngineBackend)]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engines could not do, without repeats."""
        backends = [side.backend for side in self._sides]
        engines = [each.engine for each in backends if isinstance(each, EngineBackend)]
        return tuple(dict.fromkeys(note for engine in engines for note in engine.notes))

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self.base, self.candidate

    def answer(
        self,
        tasks: Sequence[EvalTask],
        documents: Sequence[Drawn],
        progress: Progress | None = None,
    ) -> Answers:
        """Score the same documents with both.

        Raises:
            SurgeonError: a log-likelihood that is not finite.
        """
        if self.shared:
            plans = {"base": self.base.plan, "candidate": self.candidate.plan}
            prompts = _prompts(self.base.backend, tasks, documents)
            found = self.base.backend.rows(prompts, plans, progress)
            return Answers(found["base"], found["candidate"])
        # Each side renders its own prompts, so that a difference shows in the hashes.
        rows = [
            side.backend.rows(
                _prompts(side.backend, tasks, documents), {name: side.plan}, progress
            )[name]
            for side, name in zip(self._sides, ("base", "candidate"), strict=True)
        ]
        return Answers(*rows)

    def control(self, tasks: Sequence[EvalTask], documents: Sequence[Drawn]) -> Rows:
        """The base scored once more, as the candidate of an A/A comparison."""
        prompts = _prompts(self.base.backend, tasks, documents)
        return self.base.backend.rows(prompts, {"control": self.base.plan})["control"]


def _prompts(backend: Backend, tasks: Sequence[EvalTask], documents: Sequence[Drawn]) -> Any:
    by_name = {task.name: task for task in tasks}
    template = backend.lm.apply_chat_template
    return [build(by_name[each.task], [each.doc_id], template)[0] for each in documents]


def open_pair(
    base: Path,
    candidate: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | None = None,
    independent: bool = False,
    backend: BackendName = "engine",
    batch_size: int = 256,
    seed: int = 0,
    generates: bool = False,
) -> Pair:
    """Load two checkpoints, or one where the candidate is proven to be a plan of it.

    Args:
        base: model folder.
        candidate: model folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` (the base checkpoint's) or a name.
        device_map: `auto` spreads a model over all devices.
        independent: load and run both, whatever is known.
        backend: `engine`; `hf` or `vllm` are lm-eval's own models.
        batch_size: most rows of a forward.
        seed: of backends that need one.
        generates: whether answers will be generated; a model spread over devices cannot do
            that for a plan of itself.

    Raises:
        SurgeonError: a folder that does not load, or another tokenizer or vocabulary.
    """
    where = choose_device(device).value
    number = choose_dtype(dtype, stored_dtype(read_config(base)), where).value
    tokenizers = load_tokenizer(base), load_tokenizer(candidate)
    require_same_tokenizer(*tokenizers)
    _require_same_vocabulary(base, candidate)
    spread = generates and device_map is not None
    if backend == "engine" and not independent and not spread:
        plan, reason = plan_between(base, candidate)
        templates = [getattr(each, "chat_template", None) for each in tokenizers]
        if templates[0] != templates[1]:
            # Each side then renders its own prompts, and a difference shows in their hashes.
            plan, reason = None, "the chat templates differ"
        if plan is not None:
            model = load_model(base, device=where, dtype=number, device_map=device_map)
            only = EngineBackend(model, tokenizers[0], batch_size=batch_size)
            sides = Side(only, LayerPlan.identity(plan.depth)), Side(only, plan)
            return Pair(
                *sides,
                how=f"one copy of the weights: {reason}",
                plan=plan,
                dtype=number,
                device=where,
            )
    else:
        plan, reason = None, "asked for" if independent else f"backend {backend}"
        if spread:
            reason = "generation with a device map"

    def side(path: Path, tokenizer: PreTrainedTokenizerBase) -> Side:
        if backend == "vllm":
            return Side(PlainBackend(vllm_of(path, number, seed)), LayerPlan.identity(1))
        model = load_model(path, device=where, dtype=number, device_map=device_map)
        if backend == "hf":
            return Side(PlainBackend(lm_of(model, tokenizer, batch_size)), LayerPlan.identity(1))
        engine = EngineBackend(model, tokenizer, batch_size=batch_size)
        return Side(engine, LayerPlan.identity(engine.engine.depth))

    sides = side(base, tokenizers[0]), side(candidate, tokenizers[1])
    gc.collect()
    return Pair(*sides, how=f"two loaded models: {reason}", plan=plan, dtype=number, device=where)


def require_same_tokenizer(
    base: PreTrainedTokenizerBase, candidate: PreTrainedTokenizerBase
) -> None:
    """Raise unless both turn text into the same tokens.

    Raises:
        SurgeonError: another vocabulary, other special tokens, or another segmentation.
    """
    hint = "scores of models with different tokenizers are not comparable token by token"
    left, right = base.get_vocab(), candidate.get_vocab()
    if left != right:
        odd = {token for token in left.keys() | right.keys() if left.get(token) != right.get(token)}
        raise SurgeonError(
            f"the candidate has another tokenizer: {len(left)} and {len(right)} tokens, "
            f"{len(odd)} of them differ, for example `{min(odd)}`",
            hint,
        )
    sample = "Q: If 3 + 4 = 7, what is (3 + 4) * 2?\n\nA: naïve café 东京 cup d: red ->  h"
    if base(sample)["input_ids"] != candidate(sample)["input_ids"]:
        raise SurgeonError("the candidate's tokenizer cuts text into other tokens", hint)


def _require_same_vocabulary(base: Path, candidate: Path) -> None:
    sizes = []
    for path in (base, candidate):
        config = read_config(path)
        text = config.get("text_config") or config
        sizes.append(text.get("vocab_size", config.get("vocab_size")))
    if sizes[0] != sizes[1]:
        raise SurgeonError(
            f"the candidate has another vocabulary: {sizes[0]} and {sizes[1]} rows",
            hint="compare a model with one that was made from it",
        )


def template_sha256(pair: Pair) -> str | None:
    """Digest of the chat template, None where there is none."""
    tokenizer = getattr(pair.base.backend.lm, "tokenizer", None)
    template = getattr(tokenizer, "chat_template", None)
    return sha256(str(template).encode()).hexdigest() if template else None

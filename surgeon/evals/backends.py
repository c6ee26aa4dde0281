"""What answers a task's requests: the layer-plan engine, or an lm-eval model as it is."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from surgeon.errors import SurgeonError
from surgeon.evals.engine import Engine, require_finite
from surgeon.evals.evaltask import Prompt
from surgeon.evals.grading import grade
from surgeon.evals.harness import lm_of
from surgeon.evals.layout import Request
from surgeon.evals.rows import Rows
from surgeon.models import plan_view
from surgeon.plan import LayerPlan

Key = TypeVar("Key", bound=Hashable)

Windows = list[Request]
"""What one instance asks for in tokens: one request, or the windows of a rolling one."""

GENERATION_BATCH = 32
"""Most prompts decoded together: each holds a cache as long as its prompt and its answer."""


class Backend(Protocol):
    """Answers prompts under named layer plans."""

    lm: Any

    def rows(
        self,
        prompts: Sequence[Prompt],
        plans: Mapping[Key, LayerPlan],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Key, Rows]:
        """One row per prompt and plan, in the order of the prompts."""
        ...


class EngineBackend:
    """Scores all plans of one loaded model together.

    lm-eval's `HFLM` turns text into tokens, so tokenisation, BOS handling, truncation and
    rolling windows are its own; the forward passes are the engine's. Generation runs
    through `HFLM` on views that share the weights.

    Args:
        model: loaded, in eval mode.
        tokenizer: its tokenizer.
        batch_size: most rows of a forward.
        pack: run all choices of a document in one row where that is exact.
        memory: of the engine, in bytes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 256,
        pack: bool = True,
        memory: int | None = None,
    ):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.lm = lm_of(model, tokenizer)
        self.engine = Engine(
            model,
            pack=pack,
            batch_size=batch_size,
            memory=memory,
            max_length=int(self.lm.max_length),
        )
        self._encoded: dict[int, tuple[Any, Windows]] = {}

    def rows(
        self,
        prompts: Sequence[Prompt],
        plans: Mapping[Key, LayerPlan],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Key, Rows]:
        """One row per prompt and plan, in the order of the prompts.

        Args:
            prompts: from `harness.build`; their tokens are kept for a later call.
            plans: plan per name.
            progress: called with (requests done, requests in all).

        Raises:
            SurgeonError: a log-likelihood that is not finite.
        """
        asked = [instance for prompt in prompts for instance in prompt.asked]
        scored = [each for each in asked if each.request_type != "generate_until"]
        windows = [self.encode(instance) for instance in scored]
        answers = self.engine.score([r for w in windows for r in w], plans, progress)
        found: dict[Key, Rows] = {}
        for name, plan in plans.items():
            scores = answers[name]
            values = iter(zip(scores.loglikelihood.tolist(), scores.greedy.tolist(), strict=True))
            said: dict[int, Any] = {}
            for instance, each in zip(scored, windows, strict=True):
                parts = [next(values) for _ in each]
                total, greedy = sum(p[0] for p in parts), all(p[1] for p in parts)
                rolling = instance.request_type == "loglikelihood_rolling"
                said[id(instance)] = total if rolling else (total, greedy)
            said.update(self._generate(asked, plan))
            found[name] = self._graded(prompts, said)
        return found

    def encode(self, instance: Any) -> Windows:
        """The token requests of one instance, by lm-eval's own code."""
        kept = self._encoded.get(id(instance))
        if kept is not None:
            return kept[1]
        windows: Windows = []

        def record(requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            for _, context, continuation in requests:
                windows.append(Request(tuple(context), tuple(continuation)))
            return [(0.0, False)] * len(requests)

        self.lm._loglikelihood_tokens = record
        getattr(self.lm, instance.request_type)([instance], disable_tqdm=True)
        # The instance is kept with its tokens so that its id is not given to another object.
        self._encoded[id(instance)] = (instance, windows)
        return windows

    def forget(self) -> None:
        """Drop the tokens of prompts that will not be asked again."""
        self._encoded.clear()

    def _generate(self, asked: Sequence[Any], plan: LayerPlan) -> dict[int, str]:
        generated = [each for each in asked if each.request_type == "generate_until"]
        if not generated:
            return {}
        view = self.model if plan.is_identity else plan_view(self.model, plan)
        batch = min(self.batch_size, GENERATION_BATCH)
        return generate(lm_of(view, self.tokenizer, batch), generated)

    def _graded(self, prompts: Sequence[Prompt], said: Mapping[int, Any]) -> Rows:
        rows = []
        for prompt in prompts:
            tokens = [
                sum(len(r.continuation) for r in self.encode(each))
                if each.request_type != "generate_until"
                else 1
                for each in prompt.asked
            ]
            rows.append(grade(prompt, [said[id(each)] for each in prompt.asked], tokens))
        return Rows(tuple(rows))


class PlainBackend:
    """An lm-eval model as lm-eval runs it: slow, and independent of the engine.

    Args:
        lm: an lm-eval model object; it runs its own plan, whatever plan is asked for.
    """

    def __init__(self, lm: Any):
        self.lm = lm

    def rows(
        self,
        prompts: Sequence[Prompt],
        plans: Mapping[Key, LayerPlan],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Key, Rows]:
        """One row per prompt, for the one plan there is.

        Raises:
            SurgeonError: several plans, or a log-likelihood that is not finite.
        """
        if len(plans) != 1:
            raise SurgeonError(f"this backend runs one model, not {len(plans)} plans")
        asked = [instance for prompt in prompts for instance in prompt.asked]
        said: dict[int, Any] = {}
        for kind in dict.fromkeys(each.request_type for each in asked):
            own = [each for each in asked if each.request_type == kind]
            if kind == "generate_until":
                said.update(generate(self.lm, own))
            else:
                answers = getattr(self.lm, kind)(own, disable_tqdm=True)
                said.update(zip(map(id, own), answers, strict=True))
        name = next(iter(plans))
        require_finite(str(name), _numbers(said.values()))
        rows = [
            grade(p, [said[id(i)] for i in p.asked], [self._tokens(i) for i in p.asked])
            for p in prompts
        ]
        if progress:
            progress(len(asked), len(asked))
        return {name: Rows(tuple(rows))}

    def _tokens(self, instance: Any) -> int:
        if instance.request_type == "generate_until":
            return 1
        return len(self.lm.tok_encode(instance.args[-1], add_special_tokens=False))


def generate(lm: Any, instances: Sequence[Any]) -> dict[int, str]:
    """Generated text per instance id, greedy, through lm-eval's own loop.

    Raises:
        SurgeonError: the answer does not fit into the model's context.
    """
    try:
        texts = lm.generate_until(list(instances), disable_tqdm=True)
    except AssertionError as error:
        raise SurgeonError(f"generation cannot run: {error}") from error
    return dict(zip(map(id, instances), texts, strict=True))


def _numbers(answers: Any) -> Any:
    import numpy as np

    return np.array(
        [a[0] if isinstance(a, tuple) else a for a in answers if not isinstance(a, str)],
        dtype=np.float64,
    )

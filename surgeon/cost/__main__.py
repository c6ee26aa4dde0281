"""`python -m surgeon.cost`: one model in a process of its own, measured turn by turn.

Reads JSON lines from stdin and answers each with one on stdout: first the model, then a
turn as often as asked, then what it came to. Ends when stdin does.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def main() -> None:
    """Serve one model until stdin ends."""
    warnings.simplefilter("ignore")
    # Libraries may print; what they print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _serve(sys.stdin, answers)
    except KeyboardInterrupt:  # the terminal sends it to the whole group; the parent says so
        sys.exit(130)


def _serve(questions: TextIO, answers: TextIO) -> None:
    from surgeon.errors import SurgeonError

    subject = None
    for line in questions:
        question = json.loads(line)
        try:
            if subject is None:
                subject = _Subject(**question)
                answer = subject.about()
            elif question:
                answer = subject.turn(**question)
            else:
                answer = {"peak": subject.peak()}
        except (SurgeonError, RuntimeError) as error:  # RuntimeError: no memory left
            answer = {"error": str(error).partition("\n")[0]}
        print(json.dumps(answer), file=answers, flush=True)


class _Subject:
    """A loaded model.

    Args:
        path: its folder.
        device: `cpu` or `cuda[:N]`.
        dtype: a name of `models.DTYPES`.
    """

    def __init__(self, path: str, device: str, dtype: str):
        import torch
        from transformers import GenerationConfig

        from surgeon.cost import meter
        from surgeon.models import load_model

        self.on_gpu = device.startswith("cuda")
        self.device = torch.device(device)
        self.idle = 0 if self.on_gpu else meter.resident()
        self.model = load_model(Path(path), device=device, dtype=dtype)
        # The model's own settings may sample, or stop at a token.
        self.model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            self.memory = meter.ALLOCATED
        else:
            self.memory = meter.restart_peak()

    def about(self) -> dict[str, Any]:
        """What does not change from turn to turn."""
        import torch

        from surgeon.cost import meter

        text = self.model.config.get_text_config(decoder=True)
        return {
            "weights": weight_bytes(self.model),
            "idle": self.idle,
            "positions": getattr(text, "max_position_embeddings", None),
            "memory": self.memory,
            "threads": torch.get_num_threads(),
            "machine": torch.cuda.get_device_name(self.device)
            if self.on_gpu
            else meter.processor(),
        }

    def turn(self, prompt: int, tokens: int) -> dict[str, float | None]:
        """Generate once.

        Returns:
            Seconds until the first new token (`prefill`) and for all that follow it
            (`decode`), and processor seconds that others worked meanwhile, None if unknown.
        """
        import torch

        from surgeon.cost import meter

        size = int(self.model.config.get_text_config(decoder=True).vocab_size)
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(0, size, (1, prompt), generator=draw).to(self.device)
        busy, own = meter.busy(), time.process_time()
        start, ticks = timed_generation(self.model, ids, tokens)
        own = time.process_time() - own
        after = meter.busy()
        others = None if busy is None or after is None else max(0.0, after - busy - own)
        return {"prefill": ticks[0] - start, "decode": ticks[-1] - ticks[0], "others": others}

    def peak(self) -> int:
        """Most bytes since the model was loaded."""
        import torch

        from surgeon.cost import meter

        if self.on_gpu:
            return int(torch.cuda.max_memory_allocated(self.device))
        return meter.peak()


def weight_bytes(model: "PreTrainedModel") -> int:
    """Bytes of parameters and buffers, tied ones counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def timed_generation(
    model: "PreTrainedModel", ids: "torch.Tensor", tokens: int
) -> tuple[float, list[float]]:
    """Generate greedily with the library's own `generate`.

    Args:
        model: on the device of `ids`; its generation config must not name an end token.
        ids: (1, prompt) token ids.
        tokens: new tokens; exactly as many are made.

    Returns:
        When it began, and when each new token was there, in seconds of one clock.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    def now() -> float:
        if ids.is_cuda:  # kernels run on after the call that starts them
            torch.cuda.synchronize(ids.device)
        return time.perf_counter()

    class Ticks(StoppingCriteria):
        """Never stops; notes when it is asked, which is once a token."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(
            self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
        ) -> torch.Tensor:
            self.times.append(now())
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    ticks = Ticks()
    generate: Any = model.generate
    with torch.inference_mode():
        start = now()
        generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            stopping_criteria=StoppingCriteriaList([ticks]),
        )
    return start, ticks.times


if __name__ == "__main__":
    main()

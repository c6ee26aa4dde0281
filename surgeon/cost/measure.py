"""`measure_cost`: base and candidate take turns at generating, each in a fresh process.

Fresh, because the largest size of a process never shrinks, and ours has held other models.
In turns, and each pair of turns in the other order, because the clock of a shared machine
drifts by more than the two models differ.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from surgeon.cost.result import Cost, ModelCost, Spread
from surgeon.errors import SurgeonError, UsageError

BATCH = 1
PASSIVE = "passive"
"""OpenMP: threads sleep while they wait.

By default they spin, and one other busy process then makes every parallel region wait for a
slice of the scheduler: a model of a few layers becomes twenty times slower, the longer one
of two by chance more or less so.
"""

Report = Callable[[str, int, int], None]
"""Progress callback `(stage, done, total)`."""


def measure_cost(
    base: Path | str,
    candidate: Path | str,
    *,
    prompt: int = 128,
    tokens: int = 32,
    repeats: int = 5,
    seconds: float = 60.0,
    device: str = "cpu",
    dtype: str = "float32",
    report: Report = lambda stage, done, total: None,
) -> Cost:
    """Tokens per second and memory of two models.

    Args:
        base: model folder.
        candidate: model folder.
        prompt: tokens of the prompt; fewer where the models have fewer positions.
        tokens: new tokens, at least 2; fewer where the models have fewer positions.
        repeats: measured turns of each model, after one that is not counted.
        seconds: no turn begins later than this; a first turn that takes longer is counted.
        device: `cpu` or `cuda[:N]`.
        dtype: a name of `models.DTYPES`.
        report: progress callback.

    Returns:
        The cost; where a model could not be run, why (`missing`) and nothing else.

    Example:
        >>> from pathlib import Path
        >>> import surgeon
        >>> from surgeon.cost import measure_cost
        >>> demo = surgeon.resolve("demo:planted").path
        >>> plan = surgeon.LayerPlan.duplicate(12, surgeon.Block(4, 8))
        >>> made = surgeon.duplicate(surgeon.Checkpoint.open(demo), plan, Path("longer"))
        >>> cost = measure_cost(demo, "longer", repeats=1)
        >>> cost.candidate.weights > cost.base.weights
        True

    Raises:
        UsageError: numbers that are too small.
    """
    if tokens < 2 or prompt < 1 or repeats < 1:
        raise UsageError(
            f"cost: prompt {prompt}, tokens {tokens}, repeats {repeats}",
            hint="at least 1 token of prompt, 2 new tokens, 1 repeat",
        )
    asked = {"prompt": prompt, "tokens": tokens}
    how: dict[str, Any] = {**asked, "batch": BATCH, "device": device, "dtype": dtype}
    try:
        with ExitStack() as stack:
            folders = Path(base), Path(candidate)
            models = [stack.enter_context(_Model(each, device, dtype)) for each in folders]
            abouts = [model.answer() for model in models]
            how |= {key: abouts[0][key] for key in ("memory", "threads", "machine")}
            sizes = _fitting(prompt, tokens, [about["positions"] for about in abouts])
            turns, how["warm"] = _turns(models, sizes, repeats, seconds, report)
            peaks = [model.ask({})["peak"] for model in models]
    except SurgeonError as error:
        return _missing(how, str(error))
    how |= sizes
    made = [
        _model_cost([pair[at] for pair in turns], sizes, abouts[at], peaks[at]) for at in (0, 1)
    ]
    return Cost(
        base=made[0],
        candidate=made[1],
        prefill_ratio=_ratio(made[0].prefill, made[1].prefill),
        decode_ratio=_ratio(made[0].decode, made[1].decode),
        others=_others([turn for pair in turns for turn in pair]),
        **how,
    )


def _missing(how: dict[str, Any], reason: str) -> Cost:
    unknown = {"warm": False, "memory": "", "threads": 0, "machine": "", "others": math.nan}
    return Cost(
        base=None,
        candidate=None,
        prefill_ratio=None,
        decode_ratio=None,
        missing=reason,
        **{**unknown, **how},
    )


def _fitting(prompt: int, tokens: int, positions: list[int | None]) -> dict[str, int]:
    """Prompt and new tokens that fit into the positions of both models."""
    room = min((each for each in positions if each), default=prompt + tokens)
    if prompt + tokens > room:
        tokens = max(2, min(tokens, room // 2))
        prompt = max(1, room - tokens)
    return {"prompt": prompt, "tokens": tokens}


Turn = dict[str, Any]
"""Seconds of `prefill` and `decode`, and processor seconds of `others` or None."""


def _others(turns: Sequence[Turn]) -> float:
    """Processors that other work kept busy during the turns; NaN where it is not known."""
    if any(turn["others"] is None for turn in turns):
        return math.nan
    elapsed = float(sum(turn["prefill"] + turn["decode"] for turn in turns))
    worked = float(sum(turn["others"] for turn in turns))
    return worked / elapsed


def _turns(
    models: "list[_Model]",
    sizes: dict[str, int],
    repeats: int,
    seconds: float,
    report: Report,
) -> tuple[list[tuple[Turn, Turn]], bool]:
    """Pairs of turns (base, candidate), and whether one went before them uncounted."""
    began = time.monotonic()
    base, candidate = models
    first = base.ask(sizes), candidate.ask(sizes)
    if time.monotonic() - began > seconds:
        return [first], False
    turns: list[tuple[Turn, Turn]] = []
    while len(turns) < repeats and (not turns or time.monotonic() - began < seconds):
        if len(turns) % 2:
            later = candidate.ask(sizes)
            turns.append((base.ask(sizes), later))
        else:
            turns.append((base.ask(sizes), candidate.ask(sizes)))
        report("cost", len(turns), repeats)
    return turns, True


def _model_cost(
    turns: list[Turn], sizes: dict[str, int], about: dict[str, Any], peak: int
) -> ModelCost:
    prompt, steps = sizes["prompt"], sizes["tokens"] - 1
    return ModelCost(
        prefill=Spread.of([BATCH * prompt / turn["prefill"] for turn in turns]),
        decode=Spread.of([BATCH * steps / turn["decode"] for turn in turns]),
        weights=about["weights"],
        peak=peak,
        idle=about["idle"],
    )


def _ratio(base: Spread, candidate: Spread) -> Spread:
    pairs = zip(base.values, candidate.values, strict=True)
    return Spread.of([new / old for old, new in pairs])


class _Model:
    """One model in a process of its own; leaving the `with` ends the process."""

    def __init__(self, path: Path, device: str, dtype: str):
        self.path = path
        self._talk = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", "surgeon.cost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._talk,
            text=True,
            env={
                "OMP_WAIT_POLICY": PASSIVE,
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        self._say({"path": str(path), "device": device, "dtype": dtype})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._talk.close()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question.

        Raises:
            SurgeonError: the model could not do it, or its process has ended.
        """
        self._say(question)
        return self.answer()

    def _say(self, question: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            print(json.dumps(question), file=self._child.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None

    def answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            SurgeonError: the model could not do it, or its process has ended.
        """
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SurgeonError(f"`{self.path.name}`: {answer['error']}")
        return answer

    def _ended(self) -> SurgeonError:
        code = self._child.wait()
        self._talk.seek(0)
        last = self._talk.read().decode(errors="replace").strip().splitlines()[-1:]
        why = last[0] if last else "it was killed; is there enough memory?"
        return SurgeonError(f"the process of `{self.path.name}` ended with code {code}: {why}")

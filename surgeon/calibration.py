"""Calibration prompts from anywhere: bundled sets, files, or the documents of a lm-eval task."""

from pathlib import Path

from surgeon.probing.prompts import Prompts, load_prompts

LM_EVAL = "lm-eval:"


def find_prompts(
    source: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    include_path: Path | None = None,
    offline: bool = False,
) -> Prompts:
    """The prompts that `source` names.

    Args:
        source: as `load_prompts` takes it, or `lm-eval:NAME`: the documents of a lm-eval
            task as the task asks them, without answers. Judge a model on other documents
            than these.
        limit: at most this many prompts, drawn by the seed.
        seed: of that draw.
        include_path: a folder of lm-eval task YAML files.
        offline: fail at once where a task's data would have to be fetched.

    Raises:
        UnknownName: no such task or set.
        UsageError: a file that cannot be read, or a prompt that is empty.
        SurgeonError: a task's data cannot be loaded.
    """
    if not source.startswith(LM_EVAL):
        return load_prompts(source, limit=limit, seed=seed)
    from surgeon.evals.harness import build, load_tasks

    texts: list[str] = []
    for task in load_tasks([source.removeprefix(LM_EVAL)], "calibrate", include_path, offline):
        asked = build(task, sorted(task.order(seed)[:limit]))
        texts += dict.fromkeys(prompt.instances[0].args[0] for prompt in asked)
    return Prompts.of(source, "documents of a lm-eval task, without answers", texts)

#!/usr/bin/env python3
"""What sharing layers and packing choices save, beside lm-eval's own model class.

    python scripts/bench_check.py [--documents 20] [--json FILE]

A random 12-layer Llama and eight duplicates of it (a block in the middle, its six
neighbours and one more, as selection measures them) are saved as checkpoints and scored on
five-choice documents of the `deduction` task: by lm-eval's `HFLM`, one saved
checkpoint after the other; by the engine, all plans from one copy of the weights; and by
the engine with all choices of a document packed into one row. Each runs in a process of
its own. Layer forwards and tokens are counted by hooks on the layers, in every case.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from surgeon.block import Block
from surgeon.plan import LayerPlan

DEPTH = 12
MODES = {
    "HFLM, saved checkpoints": "hflm",
    "engine, shared layers": "shared",
    "engine, shared and packed": "packed",
}


def all_plans():
    """The base, a block in the middle, its neighbours, and one more."""
    blocks = [Block(4, 8), *Block(4, 8).neighbours(DEPTH), Block(6, 10)]
    some = {str(block): LayerPlan.duplicate(DEPTH, block) for block in blocks}
    return {"base": LayerPlan.identity(DEPTH), **some}


def make(folder):
    """Save the random base with the demo's tokenizer, and every plan of it."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import surgeon
    from surgeon.checkpoint.rewrite import duplicate
    from surgeon.checkpoint.store import Checkpoint

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=291, hidden_size=128, intermediate_size=384, num_hidden_layers=DEPTH,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
        tie_word_embeddings=False, initializer_range=0.1,
    )  # fmt: skip
    base = folder / "base"
    LlamaForCausalLM(config).save_pretrained(base)
    demo = Path(surgeon.__file__).parent / "demo" / "planted"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, base / name)
    for name, plan in all_plans().items():
        if name != "base":
            duplicate(Checkpoint.open(base), plan, folder / name)


def counted(model, tally):
    """Count calls and tokens of every decoder layer, by its attention.

    Attention runs only when the layer does, not when a layer's arguments are recorded.
    """
    from surgeon.models import decoder_layers

    def hook(module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        tally["forwards"] += 1
        tally["tokens"] += hidden.shape[0] * hidden.shape[1]

    for layer in decoder_layers(model)[1]:
        layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)
    return model


def work(folder, mode, documents, batch):
    """Score everything one way; returns counts, time, memory and all answers."""
    from surgeon.evals.backends import EngineBackend, PlainBackend
    from surgeon.evals.harness import build, lm_of, load_tasks
    from surgeon.models import load_model, load_tokenizer

    task = load_tasks(["deduction"], "select", offline=True)[0]
    ids = [at for at in task.order(0) if len(task.docs[at]["choices"]) == 5][:documents]
    plans, tally, found = all_plans(), {"forwards": 0, "tokens": 0}, {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    if mode == "hflm":
        for name in plans:
            model = counted(load_model(folder / name), tally)
            backend = PlainBackend(lm_of(model, load_tokenizer(folder / name), batch))
            found |= backend.rows(build(task, ids), {name: plans[name]})
    else:
        model = load_model(folder / "base")
        backend = EngineBackend(
            model, load_tokenizer(folder / "base"), batch_size=batch, pack=mode == "packed"
        )
        counted(model, tally)
        found = backend.rows(build(task, ids), plans)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers = {
        name: [[row.chosen, row.gold_loglikelihood] for row in rows] for name, rows in found.items()
    }
    return {**tally, "seconds": seconds, "peak_mib": peak / 1024, "start_mib": before / 1024,
            "answers": answers}  # fmt: skip


def table(found):
    """Print the comparison; the first row is what the others are measured against."""
    first = next(iter(found.values()))
    heads = ["way", "layer forwards", "", "layer-tokens", "", "seconds", "", "peak MiB",
             "flipped", "max |dLL|"]  # fmt: skip
    rows = []
    for name, each in found.items():
        pairs = [
            (a, b)
            for plan, answers in each["answers"].items()
            for a, b in zip(answers, first["answers"][plan], strict=True)
        ]
        row = [name]
        for key, style in (("forwards", "{:,}"), ("tokens", "{:,}"), ("seconds", "{:.1f}")):
            row += [style.format(each[key]), f"{each[key] / first[key]:.0%}"]
        row += [
            f"{each['peak_mib']:.0f}",
            f"{sum(a[0] != b[0] for a, b in pairs)}/{len(pairs)}",
            f"{max(abs(a[1] - b[1]) for a, b in pairs):.1e}",
        ]
        rows.append(row)
    widths = [max(len(line[at]) for line in [heads, *rows]) for at in range(len(heads))]
    for line in [heads, *rows]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16, help="rows per forward, in every mode")
    parser.add_argument("--json", help="also write the numbers here")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        folder, mode = Path(asked.work[0]), asked.work[1]
        print(json.dumps(work(folder, mode, asked.documents, asked.batch)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        settings = [f"--documents={asked.documents}", f"--batch={asked.batch}"]
        for name, mode in MODES.items():
            command = [sys.executable, __file__, "--work", folder, mode, *settings]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    print(f"base and {len(all_plans()) - 1} plans, {asked.documents} documents of five choices\n")
    table(found)
    if asked.json:
        Path(asked.json).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

"""Speed and memory of the probe against the reference algorithm and a bare forward.

    python scripts/bench_probe.py                      # 0.5B shape: time and memory
    python scripts/bench_probe.py --shape 3b --sides probe --repeats 1   # memory of a 6 GB model

Builds a Qwen2-shaped checkpoint of random bfloat16 weights itself (and removes it), then
runs every side in a child process of its own, in turns, and prints medians and ranges.

sides
  reference  the algorithm of the CircuitProbe program: whole model, one prompt at a time,
             hooks on every layer, eager attention; float32 is its default
  bare       the same tokens in the same packed rows through the same layers of a model in
             memory, nothing measured
  probe      this project: packed, one layer resident, statistics included

`cpu` is the processor time of the same span, which other work on the machine disturbs less.
`collect` is the time from the loaded model (reference, bare) or the opened files (probe) to
the statistics; `wall` is the whole child; `peak` its largest resident size, and `over` what
that is above an interpreter that only imported torch and transformers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = {  # layers, width, feed-forward, heads, key-value heads, vocabulary
    "tiny": (6, 128, 512, 4, 2, 4096),
    "0.5b": (24, 896, 4864, 14, 2, 151936),
    "3b": (36, 2048, 11008, 16, 2, 151936),
    "7b": (28, 3584, 18944, 28, 4, 152064),
}
TARGETS = (
    ("probe bfloat16", "bare bfloat16", 1.15),
    ("probe float32", "bare float32", 1.15),
    ("probe bfloat16", "reference bfloat16", 0.45),
    ("probe float32", "reference float32", 0.35),
    ("probe bfloat16", "reference float32", 0.15),
)


def build(folder: Path, shape: str) -> None:
    """Write a random checkpoint layer by layer, so that its size is not needed in memory."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config

    layers, width, inner, heads, kv, vocabulary = SHAPES[shape]
    Qwen2Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, tie_word_embeddings=True,
        architectures=["Qwen2ForCausalLM"], dtype="bfloat16",
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    small = width // heads * kv
    matrices = {
        "self_attn.q_proj": (width, width), "self_attn.k_proj": (small, width),
        "self_attn.v_proj": (small, width), "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }  # fmt: skip

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, dtype=torch.bfloat16).mul_(0.02)

    weight_map: dict[str, str] = {}

    def write(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))

    write(
        "model-outer.safetensors",
        {
            "model.embed_tokens.weight": random(vocabulary, width),
            "model.norm.weight": torch.ones(width, dtype=torch.bfloat16),
        },
    )
    for layer in range(layers):
        at = f"model.layers.{layer}."
        tensors = {f"{at}{name}.weight": random(*size) for name, size in matrices.items()}
        for name in ("q", "k", "v"):
            size = matrices[f"self_attn.{name}_proj"][0]
            tensors[f"{at}self_attn.{name}_proj.bias"] = random(size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = torch.ones(width, dtype=torch.bfloat16)
        write(f"model-{layer:05}.safetensors", tensors)
    body = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))


def token_ids(prompts: int, tokens: int, vocabulary: int) -> list[list[int]]:
    """Prompts of unequal length, `tokens` on average."""
    import random

    draw = random.Random(0)
    lengths = [max(1, round(tokens * draw.uniform(0.5, 1.5))) for _ in range(prompts)]
    return [[draw.randrange(vocabulary) for _ in range(length)] for length in lengths]


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall and processor seconds until now."""
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def run_reference(folder: Path, dtype: str, ids: list[list[int]]) -> tuple[float, float]:
    """Whole model, one prompt at a time; statistics as in the reference program."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()
    layers = model.model.layers
    clock = Clock()
    ins: dict[int, torch.Tensor] = {}
    outs: dict[int, torch.Tensor] = {}
    change = [[] for _ in layers]
    for at, layer in enumerate(layers):

        def hook(module, args, output, at=at):
            ins[at] = args[0]
            outs[at] = output[0] if isinstance(output, tuple) else output

        layer.register_forward_hook(hook)
    with torch.no_grad():
        for row in ids:
            model(input_ids=torch.tensor([row]), use_cache=False)
            for at in range(len(layers)):
                x, y = ins[at][0].mean(0).float().numpy(), outs[at][0].mean(0).float().numpy()
                change[at].append(y - x)
                float(np.linalg.norm(y - x)), float(np.linalg.norm(y) / np.linalg.norm(x))
    for rows in change:
        np.linalg.svd(np.stack(rows[:50]), compute_uv=False)
    return clock.read()


def run_bare(folder: Path, dtype: str, ids: list[list[int]]) -> tuple[float, float]:
    """The probe's packed rows through the layers of a model in memory; nothing measured."""
    import torch

    from surgeon.layerwise import LayerRunner
    from surgeon.models import load_model
    from surgeon.probing.subject import arrange

    model = load_model(folder, dtype=dtype)
    runner = LayerRunner(model)
    batches, _ = arrange(runner, ids, "cpu")
    clock = Clock()
    with torch.no_grad():
        for item in batches:
            hidden = item.hidden
            for layer, call in zip(runner.layers, item.calls, strict=True):
                hidden = call(layer, hidden)
    return clock.read()


def run_probe(folder: Path, dtype: str, ids: list[list[int]]) -> tuple[float, float]:
    """The project's collection: from the files to the layer statistics."""
    from surgeon.checkpoint.store import Checkpoint
    from surgeon.probing.subject import open_model
    from surgeon.probing.sweep import sweep

    subject = open_model(Checkpoint.open(folder), ids, "cpu", dtype, head=False)
    clock = Clock()
    sweep(subject.layers, subject.batches).layer_stats()
    return clock.read()


SIDES = {"reference": run_reference, "bare": run_bare, "probe": run_probe}


def peak_mb() -> float:
    """Largest resident size of this process so far, mapped files included.

    Not `ru_maxrss`, which a child inherits from the parent that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def child(side: str, folder: Path, dtype: str, ids: list[list[int]]) -> None:
    """Run one side and print its numbers; sizes are in MB."""
    import torch  # noqa: F401
    import transformers.models.qwen2.modeling_qwen2  # noqa: F401

    import surgeon.probing.engine  # noqa: F401

    floor = peak_mb()
    seconds, cpu = SIDES[side](folder, dtype, ids)
    print(json.dumps({"collect": seconds, "cpu": cpu, "peak": peak_mb(), "floor": floor}))


def measure(side: str, dtype: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [
        sys.executable, __file__, "--child", side, "--folder", str(folder), "--dtypes", dtype,
        "--shape", args.shape, "--prompts", str(args.prompts), "--tokens", str(args.tokens),
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    found["wall"] = time.perf_counter() - started
    return found


def show(rows: dict[str, list[dict[str, float]]], layer_mb: float) -> None:
    def cell(values: list[float], digits: int) -> str:
        middle = f"{statistics.median(values):.{digits}f}"
        return f"{middle} ({min(values):.{digits}f}..{max(values):.{digits}f})"

    heads = f"{'collect s':>22} {'cpu s':>22} {'wall s':>20} {'peak MB':>20} {'over MB':>9}"
    print(f"\n{'side':20} {heads}")
    for name, runs in rows.items():
        over = statistics.median([r["peak"] - r["floor"] for r in runs])
        columns = [
            cell([r[k] for r in runs], d) for k, d in (("collect", 2), ("cpu", 2), ("wall", 1))
        ]
        peak = cell([r["peak"] for r in runs], 0)
        print(
            f"{name:20} {columns[0]:>22} {columns[1]:>22} {columns[2]:>20} {peak:>20} {over:>9.0f}"
        )
    print(f"largest layer: {layer_mb:.0f} MB stored")
    for one, other, target in TARGETS:
        if one in rows and other in rows:
            ratios = [
                statistics.median([r[key] for r in rows[one]])
                / statistics.median([r[key] for r in rows[other]])
                for key in ("collect", "cpu")
            ]
            met = "met" if ratios[0] <= target else "MISSED"
            print(f"{one} / {other}: {ratios[0]:.3f} (cpu {ratios[1]:.3f}), target {target}: {met}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="0.5b")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=19, help="mean tokens of a prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="build here, and keep it for another run")
    parser.add_argument("--child", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    ids = token_ids(args.prompts, args.tokens, SHAPES[args.shape][-1])
    if args.child:
        child(args.child, args.folder, args.dtypes[0], ids)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "model.safetensors.index.json").exists():
            print(f"building a {args.shape} checkpoint ...", flush=True)
            build(folder, args.shape)
        layer_mb = (folder / "model-00000.safetensors").stat().st_size / 2**20
        print(f"{args.shape} shape, {len(ids)} prompts, {sum(map(len, ids))} tokens")
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.repeats):
            for side in args.sides:
                for dtype in args.dtypes:
                    run = measure(side, dtype, folder, args)
                    rows.setdefault(f"{side} {dtype}", []).append(run)
        show(rows, layer_mb)


if __name__ == "__main__":
    main()

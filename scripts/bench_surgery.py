"""Time `surgeon duplicate` beside `cp` and beside a torch load-and-save of the same plan.

    python scripts/bench_surgery.py [--gigabytes 2] [--folder DIR] [--json]

Makes a sharded bf16 llama of random bytes, writes the result of block 4:8 of 16 layers, and
copies that result with `cp`. Every method ends with its data on the disk (`sync`). Peak memory
is that of the process that copies. The structural verifier runs in a child beside the copy; its
imports take seconds, which a small model cannot hide, so the copy is also timed without it.
With --folder on XFS or Btrfs the reflink path is measured too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, SHARDS, BLOCK = 16, 4, "4:8"

SURGEON = """
import json, resource, sys, time
started = float(sys.argv[1])
from pathlib import Path
from surgeon.block import Block
from surgeon.checkpoint import disk
from surgeon.checkpoint.rewrite import duplicate
from surgeon.checkpoint.store import Checkpoint
from surgeon.plan import LayerPlan
first, write = [], disk.write
def noted(*arguments):
    first.append(time.time()) if not first else None
    write(*arguments)
disk.write = noted
source = Checkpoint.open(Path(sys.argv[2]))
plan = LayerPlan.duplicate(source.depth, Block.parse(sys.argv[4]))
verifier = None if sys.argv[7] == "verify" else lambda *configs: "left out of this measurement"
digest = sys.argv[6] == "digest"
duplicate(source, plan, Path(sys.argv[3]), link=sys.argv[5], digest=digest, verifier=verifier)
assert "torch" not in sys.modules
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"first_byte": first[0] - started, "rss": own / 1024, "child": child / 1024}))
"""

TORCH = """
import json, resource, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
source, out = Path(sys.argv[2]), Path(sys.argv[3])
start, stop = map(int, sys.argv[4].split(":"))
out.mkdir()
for file in sorted(source.glob("*.safetensors")):
    result = {}
    for name, tensor in load_file(file).items():
        parts = name.split(".")
        if parts[1] != "layers":
            result[name] = tensor
            continue
        layer = int(parts[2])
        first = [layer] if layer < stop else []
        again = [layer + stop - start] if layer >= start else []
        for at in first + again:
            result[".".join([*parts[:2], str(at), *parts[3:]])] = tensor.clone()
    save_file(result, out / file.name, metadata={"format": "pt"})
print(json.dumps({"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def make_model(folder, gigabytes):
    """A sharded llama of random bytes."""
    width = int((gigabytes * 1e9 / 2 / LAYERS / 12) ** 0.5) // 64 * 64
    shapes = {"model.embed_tokens.weight": (256, width), "model.norm.weight": (width,)}
    for layer in range(LAYERS):
        for part in "qkvo":
            shapes[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = (width, width)
        for part, shape in {
            "gate": (8 * width // 3, width),
            "up": (8 * width // 3, width),
            "down": (width, 8 * width // 3),
        }.items():
            shapes[f"model.layers.{layer}.mlp.{part}_proj.weight"] = shape
        for part in ("input", "post_attention"):
            shapes[f"model.layers.{layer}.{part}_layernorm.weight"] = (width,)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": width,
        "intermediate_size": 8 * width // 3,
        "num_attention_heads": width // 64,
        "vocab_size": 256,
        "tie_word_embeddings": True,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    random, weight_map = os.urandom(1 << 24), {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        header, at = {}, 0
        for key, shape in list(shapes.items())[shard::SHARDS]:
            count = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + count]}
            weight_map[key], at = name, at + count
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while at:
                at -= file.write(random[: min(at, len(random))])
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    os.sync()


def read_state(folder, cold):
    """Put a folder's files into the page cache, or out of it."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass


def timed(command, out):
    """Seconds until the command is done and its output is on the disk, and what it printed."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    started = time.time()
    shown = subprocess.run(
        [part if part != "@now" else str(started) for part in command],
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["sync", "-f", str(out)], check=True)
    return time.time() - started, json.loads(shown) if shown.strip() else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, default=None, help="where to write")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        source, out, copied = (Path(scratch) / name for name in ("source", "out", "copied"))
        make_model(source, options.gigabytes)
        python = [sys.executable, "-c"]
        place = ["@now", str(source), str(out), BLOCK]
        methods = {
            "surgeon": [*python, SURGEON, *place, "auto", "digest", "verify"],
            "surgeon, bytes alone": [*python, SURGEON, *place, "auto", "no", "skip"],
            "surgeon, bytes and digests": [*python, SURGEON, *place, "auto", "digest", "skip"],
            "torch load and save": [*python, TORCH, *place],
        }
        timed(methods["surgeon, bytes alone"], out)
        for cold in (False, True):
            read_state(out, cold)
            best = []
            for _ in range(options.repeat):
                read_state(out, cold)
                best.append(timed(["cp", "-r", str(out), str(copied)], copied)[0])
            shutil.rmtree(copied)
            reference = min(best)
            state = "cold" if cold else "warm"
            rows.append({"method": "cp of the output", "cache": state, "seconds": reference})
            for name, command in methods.items():
                found = []
                for _ in range(options.repeat):
                    read_state(source, cold)
                    found.append(timed(command, out))
                seconds, said = min(found, key=lambda item: item[0])
                ratio = seconds / reference
                rows.append(
                    {"method": name, "cache": state, "seconds": seconds, "ratio": ratio} | said
                )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print("| method | cache | seconds | of cp | first byte s | peak MB | verifier MB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        cells = [f"{row['seconds']:.2f}", f"{row.get('ratio', 1):.2f}"]
        for key, form in (("first_byte", ".2f"), ("rss", ".0f"), ("child", ".0f")):
            cells.append(format(row[key], form) if key in row else "")
        print(f"| {row['method']} | {row['cache']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

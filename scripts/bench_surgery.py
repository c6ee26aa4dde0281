"""Time `surgeon duplicate` beside `cp` and beside a torch load-and-save of the same plan.

    python scripts/bench_surgery.py [--gigabytes 4] [--repeat 5] [--folder DIR] [--json]

Makes a sharded bf16 llama of random bytes, writes the result of block 4:8 of 16 layers, and
copies that result with `cp`. Every method ends with its data on the disk (`sync`). The methods
take turns, and the table has medians with the fastest and the slowest, because the speed of a
disk, and of the memory that the system finds for its page cache, varies. "warm": what is read
is in the page cache; "cold": it is not. Peak memory is that of the process that copies; the
structural verifier, a child that imports torch and transformers beside the copy, is in a
column of its own. With --folder on XFS or Btrfs the reflink path is measured instead.
"""

import argparse
import json
import os
import shutil
import statistics
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
from surgeon.checkpoint import copying, disk
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
verifier = None if "verify" in sys.argv else lambda *configs: "left out of this measurement"
if "digest" not in sys.argv:
    copying.Digester.add = lambda self, view: None
duplicate(source, plan, Path(sys.argv[3]), verifier=verifier)
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


def measure(scratch, options, cold):
    """Seconds of every method and what it said, in turns."""
    source, reference, out = (scratch / name for name in ("source", "reference", "out"))
    python = [sys.executable, "-c"]
    place = ["@now", str(source), str(out), BLOCK]
    methods = {
        "cp of the result": ["cp", "-r", str(reference), str(out)],
        "surgeon": [*python, SURGEON, *place, "digest", "verify"],
        "surgeon without the verifier": [*python, SURGEON, *place, "digest"],
        "surgeon, bytes alone": [*python, SURGEON, *place],
        "torch load and save": [*python, TORCH, *place],
    }
    if not reference.exists():
        timed(methods["surgeon, bytes alone"], out)
        out.rename(reference)
    found = {name: [] for name in methods}
    for turn in range(options.repeat):
        for name, command in methods.items():
            if turn >= 3 and name not in ("cp of the result", "surgeon"):
                continue
            read_state(reference if command[0] == "cp" else source, cold)
            found[name].append(timed(command, out))
    return found


def rows_of(found, cold):
    """Medians and spread of one state of the cache."""
    copied = statistics.median(seconds for seconds, _ in found["cp of the result"])
    for name, runs in found.items():
        seconds = [each for each, _ in runs]
        worst = {key: max(said[key] for _, said in runs) for key in runs[0][1]}
        if "first_byte" in worst:
            worst["first_byte_median"] = statistics.median(said["first_byte"] for _, said in runs)
        middle = statistics.median(seconds)
        yield {
            "method": name, "cache": "cold" if cold else "warm", "seconds": middle,
            "fastest": min(seconds), "slowest": max(seconds), "turns": len(seconds),
            "ratio": middle / copied, **worst,
        }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, default=None, help="where to write")
    parser.add_argument("--repeat", type=int, default=5, help="turns of cp and surgeon")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        make_model(Path(scratch) / "source", options.gigabytes)
        rows = [
            row
            for cold in (False, True)
            for row in rows_of(measure(Path(scratch), options, cold), cold)
        ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{options.gigabytes:g} GB, load average at the end {os.getloadavg()[0]:.1f}")
    titles = ("method", "cache", "seconds, median (range; turns)", "of cp", "first byte s (worst)")
    print(f"| {' | '.join(titles)} | peak MB | verifier MB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        spread = f"{row['fastest']:.2f} to {row['slowest']:.2f}; {row['turns']}"
        cells = [f"{row['seconds']:.2f} ({spread})", f"{row['ratio']:.2f}"]
        first = "{first_byte_median:.2f} ({first_byte:.2f})"
        cells.append(first.format(**row) if "first_byte" in row else "")
        cells += [format(row[key], ".0f") if key in row else "" for key in ("rss", "child")]
        print(f"| {row['method']} | {row['cache']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

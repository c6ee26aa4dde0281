"""Checkpoints made the slow, plain way: the independent twin of everything that is shared."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from surgeon.checkpoint.config import rewrite_config
from surgeon.checkpoint.manifest import MANIFEST_NAME, Manifest, Source
from surgeon.checkpoint.store import Checkpoint
from surgeon.plan import LayerPlan


def save_plan(base: Path, plan: LayerPlan, out: Path, *, manifest: bool = True) -> Path:
    """Write what `plan` makes of `base`, tensor by tensor, through torch."""
    checkpoint = Checkpoint.open(base)
    out.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix == ".json" and file.name not in ("config.json", MANIFEST_NAME):
            shutil.copy(file, out / file.name)
    tensors = {}
    for file in checkpoint.files:
        for name, tensor in load_file(base / file).items():
            for new in checkpoint.stack.renamed(name, plan):
                tensors[new] = tensor.clone()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = rewrite_config(checkpoint.config, plan, prefix=checkpoint.stack.prefix)
    (out / "config.json").write_text(json.dumps(config))
    if manifest:
        record = Manifest(
            source=Source(id="base", revision=None, files={}), plan=plan, edits=[], files=[],
            tensors={}, carried=[], left=[], checks=[], rebuild="", versions={},
        )  # fmt: skip
        (out / MANIFEST_NAME).write_text(record.to_json())
    return out

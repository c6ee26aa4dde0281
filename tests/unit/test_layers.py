"""The import rules of the package, read from its syntax trees."""

import ast
from pathlib import Path

import pytest

import surgeon

ROOT = Path(surgeon.__file__).parent

FLOORS = [
    "version errors record block plan fixed sequential topics",
    "checkpoint stats paired recipe",
    "score tasks models",
    "layerwise",
    "probing evals verification hub selection cost",
    "calibration sweeping",
    "outcome catalogue environment",
    "report runs",
    "pipeline release",
    "cli",
]
RANK = {name: rank for rank, names in enumerate(FLOORS) for name in names.split()}

NO_TORCH = {
    "version", "errors", "record", "block", "plan", "fixed", "sequential",
    "checkpoint", "stats", "paired", "score", "tasks", "selection",
}  # fmt: skip

ONLY = {
    "lm_eval": {"evals/harness.py"},
    "huggingface_hub": {"hub.py", "report/card.py"},
    "matplotlib": {f"report/{name}.py" for name in ("canvas", "plots", "plots_check", "heatmap")},
    "ray": {"sweeping/ray_connection.py"},
}


def modules():
    return sorted(p for p in ROOT.rglob("*.py") if "_recipes" not in p.parts)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def stage(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = stage(path)
    if own in ("__init__", "__main__"):
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "surgeon":
            continue
        other = parts[1] if len(parts) > 1 else "version"
        allowed = other == own or RANK[other] < RANK[own] or RANK[own] == RANK[other] == 0
        assert allowed, f"{own} (rank {RANK[own]}) imports {name} (rank {RANK[other]})"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_imports_stay_where_they_belong(path):
    relative = path.relative_to(ROOT).as_posix()
    roots = {name.split(".")[0] for name in imports(path)}
    if stage(path) in NO_TORCH:
        assert not roots & {"torch", "transformers", "lm_eval"}
    for package, homes in ONLY.items():
        if package in roots:
            assert relative in homes, f"{relative} imports {package}"

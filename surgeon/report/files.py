"""Files that are there whole or not at all."""

from pathlib import Path


def put(path: Path, text: str) -> Path:
    """Write a text file beside its place, then move it there."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
    return path

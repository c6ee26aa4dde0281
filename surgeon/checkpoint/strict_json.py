"""JSON from untrusted files: one object, no duplicate keys, no NaN, bounded size and depth."""

import json
import math
from collections import Counter
from typing import Any

from surgeon.errors import UnsafeCheckpoint

MAX_DEPTH = 64


def parse_object(data: bytes, what: str, *, limit: int, infinity: bool = False) -> dict[str, Any]:
    """One JSON object, read strictly.

    Python's reader accepts NaN, keeps the last of two equal keys and reads numbers of any
    length; each of these lets two programs see two different files in the same bytes.

    Args:
        data: UTF-8 text.
        what: how messages name it, for example `` `config.json` ``.
        limit: largest accepted size in bytes.
        infinity: accept `Infinity`, which published configs use for open ranges.

    Raises:
        UnsafeCheckpoint: too large, not UTF-8, not JSON, or not strict JSON.
    """
    if len(data) > limit:
        raise UnsafeCheckpoint(f"{what} has {len(data):,} bytes, the limit is {limit:,}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise UnsafeCheckpoint(f"{what} has the key {shown(twice)} twice")
        return found

    def constant(name: str) -> float:
        if infinity and name == "Infinity":
            return math.inf
        raise UnsafeCheckpoint(f"{what} holds `{name}`, which is not JSON")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else constant(text)

    try:
        value = json.loads(
            data.decode(), object_pairs_hook=unique, parse_constant=constant, parse_float=finite
        )
    except RecursionError:
        raise UnsafeCheckpoint(f"{what} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UnsafeCheckpoint(f"{what} is not UTF-8 text: {error.reason}") from None
    except ValueError as error:  # bad syntax, or an integer of thousands of digits
        raise UnsafeCheckpoint(f"{what} is not JSON: {error}") from None
    _refuse_surrogates(value, data, what)
    if not isinstance(value, dict):
        raise UnsafeCheckpoint(f"{what} is a JSON {type(value).__name__}, expected an object")
    return value


def _refuse_surrogates(value: Any, data: bytes, what: str) -> None:
    """Refuse escapes of half a character: such text cannot be written again."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise UnsafeCheckpoint(f"{what} holds text that is not Unicode") from None


def check_depth(value: Any, what: str) -> None:
    """Refuse nesting deeper than `MAX_DEPTH`, so that later walks may recurse.

    Raises:
        UnsafeCheckpoint: it is deeper.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise UnsafeCheckpoint(f"{what} is nested more than {MAX_DEPTH} deep")


def shown(text: str, limit: int = 80) -> str:
    """Foreign text for a message: escaped, cut, in backticks."""
    plain = text.encode("unicode_escape").decode()
    return f"`{plain if len(plain) <= limit else plain[:limit] + '...'}`"

"""Random headers and indexes: accepted only if the reference parser agrees, else refused.

At least 100,000 cases: bytes changed at random in sound files, and structured headers drawn
by hypothesis.
"""

import json
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from surgeon.checkpoint.header import MAX_HEADER, encode_header, parse_header
from surgeon.checkpoint.index import encode_index, parse_index
from surgeon.errors import UnsafeCheckpoint

MUTATIONS = 100_000
INDEX_MUTATIONS = 50_000
DRAWN = 2_000

SOUND = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b.0.bias": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "b.1.bias": {"dtype": "U8", "shape": [], "data_offsets": [32, 33]},
}
PAYLOAD = bytes(range(33))
TOKENS = [
    b"0", b"1", b"-1", b"24", b"33", b"4294967296", b"18446744073709551616", b"1e3", b"true",
    b"null", b"NaN", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\u0000", b"\\ud800", b"\xff",
    b'"F32"', b'"F64"', b'"dtype"', b'"shape"', b"[0,24]", b"[24,0]", b"[]", b"{}", b" ", b"..",
]  # fmt: skip


def mutate(text, rng):
    """One to four changes: a token put in, a stretch removed, a byte flipped, a copy."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + rng.randrange(4)] = rng.choice(TOKENS)
        elif kind == 1:
            del data[at : at + rng.randrange(8)]
        elif kind == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randrange(40)]
    return bytes(data)


def by_reference(text, payload):
    """Name to dtype, shape and bytes, by the reference parser; None if it refuses."""
    try:
        found = deserialize(struct.pack("<Q", len(text)) + text + payload)
    except SafetensorError:
        return None
    return {
        name: (info["dtype"], tuple(info["shape"]), bytes(info["data"])) for name, info in found
    }


def by_us(text, payload):
    try:
        tensors, _ = parse_header(text, len(payload), "fuzz")
    except UnsafeCheckpoint as error:
        assert len(str(error)) < 1000
        return None
    return {t.name: (t.dtype, t.shape, payload[t.start : t.stop]) for t in tensors}


@pytest.mark.slow
def test_mutated_headers():
    rng = random.Random(0)
    sound = json.dumps(SOUND).encode()
    accepted = 0
    for _ in range(MUTATIONS):
        text = mutate(sound, rng)
        found = by_us(text, PAYLOAD)
        if found is not None:
            accepted += 1
            assert found == by_reference(text, PAYLOAD), text
    assert 50 < accepted < MUTATIONS / 2  # both answers were exercised


@pytest.mark.slow
def test_mutated_indexes():
    rng = random.Random(1)
    sound = encode_index({f"layers.{at}.w": f"model-{at}.safetensors" for at in range(4)}, 10, 5)
    accepted = 0
    for _ in range(INDEX_MUTATIONS):
        try:
            found = parse_index(mutate(sound, rng))
        except UnsafeCheckpoint as error:
            assert len(str(error)) < 1000
            continue
        accepted += 1
        for name in found.values():
            assert name.endswith(".safetensors") and not set(name) & set("/\\:\0\n")
            assert not name.startswith(".")
    assert accepted > 50


counts = st.one_of(
    st.integers(-2, 40), st.sampled_from([2**31, 2**62, 2**64, -1, True, None, 1.5, "1", []])
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F4", "I64", "BOOL", "X", 1, None]),
        "shape": st.one_of(st.lists(counts, max_size=4), counts),
        "data_offsets": st.one_of(st.lists(counts, min_size=2, max_size=2), counts),
    }
)
headers = st.dictionaries(st.text(max_size=5), st.one_of(entries, counts), max_size=4)


@pytest.mark.slow
@settings(max_examples=DRAWN, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(headers, st.binary(max_size=48))
def test_drawn_headers(header, payload):
    text = json.dumps(header).encode()
    found = by_us(text, payload)
    if found is not None:
        assert found == by_reference(text, payload)


sizes = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z.0-9]{1,12}", fullmatch=True),
        st.tuples(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8)]), sizes),
        max_size=6,
    ),
    st.one_of(st.none(), st.integers(0, 511).map(lambda at: at * 8)),
)
def test_written_headers_read_back(shapes, residue):
    from math import prod

    from surgeon.checkpoint.header import Tensor

    tensors, at = [], 0
    for name, ((dtype, width), shape) in shapes.items():
        stop = at + prod(shape) * width
        tensors.append(Tensor(name, dtype, tuple(shape), at, stop))
        at = stop
    raw = encode_header(tensors, {"format": "pt"}, residue=residue)
    assert len(raw) % 8 == 0 and (residue is None or len(raw) % 4096 == residue)
    assert int.from_bytes(raw[:8], "little") == len(raw) - 8 < MAX_HEADER
    found, metadata = parse_header(raw[8:], at, "written")
    assert sorted(found) == sorted(tensors) and metadata == {"format": "pt"}
    reference = by_reference(raw[8:], b"\0" * at)
    assert reference is not None and set(reference) == set(shapes)


def test_at_least_100_000_cases():
    assert MUTATIONS + INDEX_MUTATIONS + DRAWN >= 100_000

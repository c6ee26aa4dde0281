"""Is a checkpoint what it says it is: files, digests, structure, keys, logits."""

from surgeon.verify.checks import verify
from surgeon.verify.result import Check, Verification

__all__ = ["Check", "Verification", "verify"]

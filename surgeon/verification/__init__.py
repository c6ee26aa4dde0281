"""Is a checkpoint what it says it is: files, digests, structure, keys, logits."""

from surgeon.verification.checks import verify
from surgeon.verification.result import Check, Verification

__all__ = ["Check", "Verification", "verify"]

"""How many candidates were ever checked: the best of many looks better than it is."""

import json
from hashlib import sha256
from pathlib import Path

from surgeon.checkpoint.store import Checkpoint
from surgeon.errors import SurgeonError


def count_tried(ledger: Path, base: Path, candidate: Path, protocol: str) -> int:
    """Note a candidate and count the distinct ones checked against this base so far.

    The candidate is noted before its first document is scored, so a check that is stopped
    counts too. The same candidate under another protocol is another try.

    Args:
        ledger: JSONL file, created if missing.
        base: model folder.
        candidate: model folder.
        protocol: digest of the protocol.

    Raises:
        SurgeonError: the ledger cannot be read.
    """
    entry = {"base": _identity(base), "candidate": _identity(candidate), "protocol": protocol}
    try:
        lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
        known = [json.loads(line) for line in lines if line.strip()]
        tries = {
            (each["candidate"], each["protocol"]) for each in known if each["base"] == entry["base"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SurgeonError(f"`{ledger}` cannot be read: {error}") from error
    if (entry["candidate"], protocol) not in tries:
        with ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    return len(tries | {(entry["candidate"], protocol)})


def _identity(path: Path) -> str:
    text = json.dumps(Checkpoint.open(path).identity(), sort_keys=True)
    return sha256(text.encode()).hexdigest()

"""`python -m surgeon.verification`: answer the question that `surgeon.checkpoint.gate` asks.

Reads a JSON object from stdin and writes one to stdout, so that the process that copies bytes
needs no torch.
"""

import gc
import json
import os
import sys
import warnings

from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan

# transformers imports these wherever they are installed, for losses of object detection and
# for assisted generation; no model is built from them, and they take a fifth of the time.
NOT_NEEDED = ("scipy", "sklearn")


def lighten() -> None:
    """Leave out of this process what costs time and has no part in building models."""
    gc.disable()  # walks over all that torch and transformers have, many times; nothing is freed
    for name in NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module as absent


def main() -> None:
    """Compare the structure of two configs under a plan."""
    warnings.simplefilter("ignore")
    question = json.load(sys.stdin)
    plan = LayerPlan.parse(question["plan"], question["depth"])
    lighten()
    from surgeon.verification.structure import check_structure

    problem, found = None, None
    try:
        found = check_structure(question["before"], question["after"], plan)
    except SurgeonError as error:
        problem = str(error)
    json.dump({"problem": problem, "found": found}, sys.stdout)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # taking torch apart takes longer than asking did

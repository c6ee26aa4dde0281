"""`python -m surgeon.verification`: answer the question that `surgeon.checkpoint.gate` asks.

Reads a JSON object from stdin and writes one to stdout, so that the process that copies bytes
needs no torch.
"""

import json
import sys
import warnings

from surgeon.errors import SurgeonError
from surgeon.plan import LayerPlan


def main() -> None:
    """Compare the structure of two configs under a plan."""
    warnings.simplefilter("ignore")
    question = json.load(sys.stdin)
    plan = LayerPlan.parse(question["plan"], question["depth"])
    from surgeon.verification.structure import check_structure

    problem, found = None, None
    try:
        found = check_structure(question["before"], question["after"], plan)
    except SurgeonError as error:
        problem = str(error)
    json.dump({"problem": problem, "found": found}, sys.stdout)


if __name__ == "__main__":
    main()

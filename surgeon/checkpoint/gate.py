"""The structural verifier, asked from here without importing torch.

The verifier builds source and result on the meta device, which needs torch and transformers.
It runs in a child process while bytes are being written to the hidden folder; nothing is
published before it has agreed, and writing stops as soon as it has not.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

from surgeon.errors import SurgeonError, UnsupportedModel
from surgeon.plan import LayerPlan

Verifier = Callable[[dict[str, Any], dict[str, Any], LayerPlan], str]
"""(source config, result config, plan) -> what was found, in words; raises UnsupportedModel."""

_COMMAND = (sys.executable, "-P", "-m", "surgeon.verification")


class Gate:
    """A verdict that is on its way.

    Args:
        before: config of the source.
        after: config of the result.
        plan: which source layer runs at each position.
        verifier: ask this function now; None asks a child process in the background.
    """

    def __init__(
        self,
        before: dict[str, Any],
        after: dict[str, Any],
        plan: LayerPlan,
        verifier: Verifier | None = None,
    ) -> None:
        self._found = verifier(before, after, plan) if verifier else None
        self._child: subprocess.Popen[bytes] | None = None
        if verifier is None:
            self._talk: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
            question = {"before": before, "after": after, "depth": plan.depth, "plan": str(plan)}
            self._child = _start(json.dumps(question).encode(), self._talk)

    def poll(self) -> None:
        """Return at once while the verdict is open or good.

        Raises:
            UnsupportedModel: the verifier found a difference.
            SurgeonError: it could not run.
        """
        if self._child is not None and self._child.poll() is not None:
            self.wait()

    def wait(self) -> str:
        """What the verifier found, once it has.

        Raises:
            UnsupportedModel: it found a difference.
            SurgeonError: it could not run.
        """
        if self._child is not None:
            answer, _ = self._child.communicate()
            code, self._child = self._child.returncode, None
            self._found = _read_answer(answer, code, self._talk)
        assert self._found is not None
        return self._found

    def close(self) -> None:
        """Stop the child if it still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _start(question: bytes, talk: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the child with its question in a file, so that neither side waits on a pipe."""
    with tempfile.TemporaryFile() as asked:
        asked.write(question)
        asked.seek(0)
        return subprocess.Popen(_COMMAND, stdin=asked, stdout=subprocess.PIPE, stderr=talk)


def _read_answer(answer: bytes, code: int, talk: IO[bytes]) -> str:
    try:
        body = json.loads(answer)
        problem, found = body["problem"], body["found"]
    except (ValueError, KeyError, TypeError):
        talk.seek(0)
        last = talk.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise SurgeonError(
            f"the structural verifier ended with code {code}: {last[0]}",
            hint="it needs torch and transformers in the same environment",
        ) from None
    if problem:
        raise UnsupportedModel(str(problem))
    return str(found)

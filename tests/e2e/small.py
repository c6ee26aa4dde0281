"""What several tests of the command line share."""

import signal

# Settings that make the demo chain take seconds.
SMALL = (
    "--set", "select.documents=40", "--set", "check.documents=200", "--set", "probe.limit=60",
    "--set", "cost.enabled=false",
)  # fmt: skip
COSTED = (*SMALL, "--set", "cost.enabled=true", "--set", "cost.repeats=2")


def hear_ctrl_c():
    """For `preexec_fn`: a test run in the background inherits an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

"""Settings that make the demo chain take seconds."""

SMALL = ("--set", "select.documents=40", "--set", "check.documents=200", "--set", "probe.limit=60")

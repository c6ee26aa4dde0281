"""Evaluation: many layer plans on the same documents, and the check that gives a verdict."""

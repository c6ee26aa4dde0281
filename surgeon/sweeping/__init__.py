"""Measured effects of many layer plans: the truth behind a probe's prediction."""

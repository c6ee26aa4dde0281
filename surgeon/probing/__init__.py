"""Probe: one pass of calibration prompts through a base model -> statistics -> ranked blocks."""

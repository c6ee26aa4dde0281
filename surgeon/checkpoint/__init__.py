"""Bytes on disk: read, judge, rewrite and describe checkpoints. Nothing here imports torch."""

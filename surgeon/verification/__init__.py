"""Is a checkpoint what it says it is: files, digests, structure, keys, logits."""

"""Is a checkpoint what it says it is: structure, files, keys, logits."""

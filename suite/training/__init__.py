"""The training loop, its optimisers and checkpoints."""

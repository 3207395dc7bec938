"""A training run: trainer, losses, optimiser, moving average, and its state on disk."""

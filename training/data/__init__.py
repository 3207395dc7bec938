"""Data sets and what is done to their images before a training step sees them."""

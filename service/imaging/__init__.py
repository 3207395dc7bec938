"""Encoded bytes to RGB to model input, and the class map back to the image's size."""

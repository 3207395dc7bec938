"""Writes the model folder, weights/<model>/, that the service loads."""

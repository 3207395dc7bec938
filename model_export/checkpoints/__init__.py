"""Strict loading of checkpoints, this project's and the published ones."""

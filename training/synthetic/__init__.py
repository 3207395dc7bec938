"""Rendered street scenes with exact labels, each a function of a seed."""

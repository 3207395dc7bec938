"""Engines, accuracy and codecs."""

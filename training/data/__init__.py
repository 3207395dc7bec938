"""Labelled images on disk, augmented and batched."""

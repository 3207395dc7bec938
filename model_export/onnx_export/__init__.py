"""Exact rewrites that make the network cheaper to run: one file each, with the algebra; the same numbers come out."""

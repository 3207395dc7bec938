"""Millions of pictures at once: `alignseg segment SOURCE -o OUT --ray`, through Ray Data."""

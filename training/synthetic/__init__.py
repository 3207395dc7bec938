"""Street scenes drawn with exact labels, as a function of a seed."""

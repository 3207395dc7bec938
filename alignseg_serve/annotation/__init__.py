"""Pre-labels for annotation tools, from the masks of a running server."""

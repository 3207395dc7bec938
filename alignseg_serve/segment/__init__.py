"""`alignseg segment`: files on disk, segmented by a local engine or a server."""

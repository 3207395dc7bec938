"""The same application on Ray Serve, for more than one machine."""

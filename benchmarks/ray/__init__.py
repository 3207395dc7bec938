"""Ray Serve and Ray Data."""

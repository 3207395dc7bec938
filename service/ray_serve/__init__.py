"""Past one machine: Ray Serve in front of the same road."""

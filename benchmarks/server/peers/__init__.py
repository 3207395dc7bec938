"""Other servers with the same model and API, written as their own documentation shows."""

"""The server: beside its peers, under overload, over time."""

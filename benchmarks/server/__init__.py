"""The server beside its peers, under overload and over time."""

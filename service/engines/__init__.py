"""One file a runtime; select.py picks."""

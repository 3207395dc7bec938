"""Thin routes: they translate HTTP to calls and back, and hold no logic."""

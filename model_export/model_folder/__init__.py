"""Writes weights/<model>/."""

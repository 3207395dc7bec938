"""Strict checkpoint loading, and the names of the published weights."""

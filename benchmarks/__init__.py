"""Benchmarks: each one command, writes JSON under results/."""

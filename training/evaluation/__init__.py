"""Metrics, predictors, inference modes and reports."""

"""Metrics, predictors and reports."""

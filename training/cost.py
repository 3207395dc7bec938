"""What a network costs to run, counted as model_export/flops.py says."""

from model_export.flops import BILINEAR, WEIGHTS, Cost, cost

__all__ = ["BILINEAR", "WEIGHTS", "Cost", "cost"]

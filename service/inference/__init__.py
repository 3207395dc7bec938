"""One image from bytes to response; which model serves it; load, reload, drain."""

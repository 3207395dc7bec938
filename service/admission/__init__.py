"""Which requests are accepted: by count, bytes, pixels and latency."""

"""Which requests are admitted: by count, bytes, latency and pixels."""

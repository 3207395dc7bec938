"""The request record as a log line, Prometheus metrics and OpenTelemetry spans."""

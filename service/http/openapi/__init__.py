"""The OpenAPI descriptions shown at /docs, one file per API."""

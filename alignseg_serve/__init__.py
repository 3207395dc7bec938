"""What users type and import: the `alignseg` command and the HTTP client."""

"""The picture road: HTTP bytes -> decode -> prepare -> batch -> engine -> encode -> HTTP."""

"""The web page at / and Swagger UI at /docs: static files without a build step."""

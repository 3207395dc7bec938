"""The HTTP layer: routes, middleware, request parsing and error responses. No other package knows HTTP."""

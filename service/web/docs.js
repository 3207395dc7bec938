// Starts Swagger UI. A file of its own, since our policy lets no inline script run.

SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, displayRequestDuration: true });

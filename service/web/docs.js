// Starts Swagger UI, in the system's color scheme. A separate file, because the content security policy forbids inline
// scripts.

const dark = matchMedia("(prefers-color-scheme: dark)");
const applyColorScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyColorScheme);
applyColorScheme();

addEventListener("DOMContentLoaded", () =>
  SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, displayRequestDuration: true }),
);

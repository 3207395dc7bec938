"""The process: the uvicorn server, sockets, signals and HTTP/1.1 below ASGI."""

"""OpenVINO on the CPU: graph rewrites, int8 and the compile cache. Only this package imports openvino."""

"""OpenVINO on the CPU: the graph rewrites, int8 and the compile cache."""

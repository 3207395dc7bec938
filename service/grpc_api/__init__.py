"""The Open Inference Protocol over gRPC, on a port of its own. Needs the extra `grpc`; nothing else imports grpcio."""

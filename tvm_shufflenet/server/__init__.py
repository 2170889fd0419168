"""The device server: TVM RPC in C++, sandboxed; how it is built for this machine, for arm64 and for Android."""

SERVER_PORT = 9090  # where it listens unless told otherwise

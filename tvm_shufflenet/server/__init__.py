"""The device server: TVM RPC in C++, sandboxed, with its builds for this machine, arm64 Linux and Android."""

SERVER_PORT = 9090  # where it listens unless told otherwise

"""The clock model of the emulated cores: what was counted becomes cycles and nanoseconds. Knows nothing of QEMU."""

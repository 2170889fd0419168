"""The clock model of the emulated cores: converts counts to cycles and nanoseconds. It knows nothing of QEMU."""

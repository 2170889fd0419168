"""An emulated Cortex-A: the device server under QEMU with a counting plugin, as a process of its own."""

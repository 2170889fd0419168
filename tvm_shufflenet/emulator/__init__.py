"""An emulated Cortex-A: the device server under QEMU with a counting plugin, as a process of its own."""

# What a session with a whole network may take: QEMU needs a minute for what the core that it counts for does in
# tenths of a second.
SESSION_SECONDS = 7200

"""What every layer uses and knows nothing of networks: files, locks, processes, tools, text, interrupts."""

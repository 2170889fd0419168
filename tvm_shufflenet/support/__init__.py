"""Helpers for every layer that know nothing of networks: files, locks, processes, tools, text, interrupts."""

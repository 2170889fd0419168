"""Correct or nothing: verifies operators and whole networks with references, probes and digests."""

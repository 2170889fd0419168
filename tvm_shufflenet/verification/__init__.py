"""Correct or nothing: references, probes and digests, of operators and of whole networks."""

"""Trials: built, run, checked and timed in worker processes."""

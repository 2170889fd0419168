"""Tuning records on disk: written, read, merged, shipped."""

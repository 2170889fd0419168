"""Passes over Relax modules, one a file."""

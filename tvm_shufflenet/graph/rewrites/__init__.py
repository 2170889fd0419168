"""The fuser's rewrites: one module for each operator, and those that compute nothing."""

"""The search for a schedule: which are tried, and when it ends."""

"""The search for schedules: proposals, batches, and when it ends."""

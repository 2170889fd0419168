"""What the commands do, one module a job; nothing here prints."""

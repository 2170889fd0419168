"""Shipped tuning records, a folder per target. A package, so that an installed tool finds them too."""

"""What is linked into a library or server: its parts, their licences, and the bill of materials."""

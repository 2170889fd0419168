"""Packages on devices: copied there, and measured by the static benchmark that they hold."""

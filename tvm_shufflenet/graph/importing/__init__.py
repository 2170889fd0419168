"""Converts an exported program to Relax: TVM's importer, with our own converters where TVM's differ from PyTorch."""

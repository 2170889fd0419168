"""Instruction sets, cores, boards and targets, as data. Imports no TVM."""

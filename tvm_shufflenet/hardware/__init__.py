"""What code is generated for and what it runs on: instruction sets, cores, boards, targets. Data, and no TVM."""

"""What the fuser looks for in a graph: one module an operator, and the rewrites that compute nothing."""

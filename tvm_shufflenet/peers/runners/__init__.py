"""Programs that the peers' own Pythons run, each in a process of its own; none of them is imported by the rest."""

"""The operating system's side of a run: its lock, signals, other processes, time and checkpoints."""

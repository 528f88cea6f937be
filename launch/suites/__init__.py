"""Works of fixed shapes that python -m launch.benchmark --suite times, ours and the peers'."""

"""Reports drawn from a run directory."""

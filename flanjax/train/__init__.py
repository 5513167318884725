"""The trainer: mesh, optimiser, step, checkpoints and the loop."""

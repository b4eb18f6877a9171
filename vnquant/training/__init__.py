"""Training stacks of models: data, optimiser, checkpoints, memory, and the loop over rounds."""

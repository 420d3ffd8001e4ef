"""Training: the loop, its stages, pretraining, the person detector, the memory bank."""

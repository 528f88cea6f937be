"""gentrain: train generative models by any objective, and see which one goes where theory says."""

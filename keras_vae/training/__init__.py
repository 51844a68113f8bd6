"""Training: what `fit` does with a model, its data and its objective."""

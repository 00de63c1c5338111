"""Meta-learning in PyTorch Lightning: few-shot learners on episodic data."""

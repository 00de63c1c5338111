"""Drawing tasks: the data module, its random numbers, and images by class."""

"""Drawing tasks: the data module, its sampler and random numbers, images by class, photographs."""

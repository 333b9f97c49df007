"""From noise to pictures: what networks, schedulers and autoencoders do together."""

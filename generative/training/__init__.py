"""Training generators on pictures of one's own: diffusion models, GANs, autoencoders."""

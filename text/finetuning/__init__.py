"""Fine-tuning models of texts: on labels, on pairs that belong together, on texts and talks."""

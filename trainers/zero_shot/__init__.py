"""Zero-shot evaluation: what a backbone does before any training."""

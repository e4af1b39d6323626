"""Backbones: Hugging Face models under the head."""

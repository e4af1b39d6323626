"""The task's side, from an Example to logits. Nothing here knows of trainers."""

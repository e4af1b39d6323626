"""The machine's side: weights, data, loss, loop, numbers.

Import from the room: from trainers.finetune import finetune.
"""

"""What the sensors share. Doesn't belong here: anything that only one of them needs."""

EVERY_S = 60
"""Between two ticks. A tick may not take as long: it would go on beside the next."""

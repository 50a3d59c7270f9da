"""What must be computed: layers, the three ops of a training step, their operand streams."""

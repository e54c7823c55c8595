"""What a run costs, measured: a training step, the inference of an image, memory; and the width that a time means."""

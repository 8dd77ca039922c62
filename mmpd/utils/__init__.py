"""What several rooms need: one module for files, images, checkpoints and models each."""

"""dpmi: differentially private training on medical images, as a benchmark."""

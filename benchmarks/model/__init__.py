"""The model: runtimes, accuracy, codecs, GPU."""

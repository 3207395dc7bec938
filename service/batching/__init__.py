"""The queue before the engines: batches of one shape, formed when an engine is free; a bad image fails alone."""

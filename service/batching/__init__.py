"""The queue before the engines: batches of one shape, cut late; one bad image fails alone."""

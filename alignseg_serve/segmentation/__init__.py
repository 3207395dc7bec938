"""Images to masks: `segmenter` runs the model in this process, `files` and `backends` are `alignseg segment`."""

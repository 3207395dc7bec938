"""The exception of the data sets."""


class DatasetError(FileNotFoundError):
    """A data set is missing or incomplete, or one of its files can't be read."""

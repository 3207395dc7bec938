"""One package a runtime, each an implementation of service.types.Engine; selection.py chooses between them."""

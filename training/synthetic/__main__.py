"""Renders a street scene and its labels: python -m training.synthetic scene.png."""

from training.synthetic.render import main

if __name__ == "__main__":
    main()

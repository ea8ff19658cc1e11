"""Bundled models, each a release folder with its card, and the recipe that makes them (`build.py`)."""

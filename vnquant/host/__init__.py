"""The controller on your own machine. Needs the extra ``host``; never part of an image."""

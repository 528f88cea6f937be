"""Placeholder of the interface, to be written over."""

NAMES = ("flip", "shift", "cutout", "brightness", "contrast")


def augment(names, images, keys):
    return images

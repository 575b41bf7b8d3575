"""Preparation of a batch on the device, before the network: resize, composite, canonicalise, augment."""

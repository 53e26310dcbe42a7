"""Engines that work on many machines read topics and write to them."""

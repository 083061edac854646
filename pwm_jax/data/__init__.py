"""Offline data: episodes on disk, windows of them as batches, collection from behaviour sources, and replay."""

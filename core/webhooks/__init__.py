"""Telling others of changes to jobs: who is told, what, and how it gets there."""

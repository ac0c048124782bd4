"""Bringing a base model: a file or folder of the administrator's becomes a pipeline folder of ours.

Nothing here loads a tensor library: what is renamed, split and written are bytes.
"""

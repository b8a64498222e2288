"""Segmenting video: files, folders of frames, cameras and network streams.

Three threads share the work: one reads, one segments, one draws and writes (`pipeline`). What lies
between them is bounded (`channel`): a file waits for the slowest of them, a live source loses
frames instead of growing old.
"""

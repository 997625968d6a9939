"""The tasks, one file each. Nothing here knows of FP16, policies or recording."""

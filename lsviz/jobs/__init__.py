"""Where a run executes: in this process, or in a detached one."""

"""What a run leaves in its workdir, and how several processes share one."""

"""How outputs change with inputs."""

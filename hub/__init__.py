"""Models by name: the registry, downloads and cache, loading, the command line."""

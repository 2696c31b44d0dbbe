"""Trees and timelines: how the plugin draws what it has read."""

"""Records of decisions: what each decision rested on, how it is packed into ConfigMaps, and how it is read again."""

"""*gather -> decide -> apply*, one flight per object, one status write at the end. No client library is imported here."""

"""What every other folder knows: the record, settings, errors, paths, and the machine."""

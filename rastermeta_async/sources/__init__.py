"""Where paths come from: standard input, lists, walked folders, prefixes in stores, iterables."""

"""The command line: options, what a person sees while a run goes on, and views of what it made."""

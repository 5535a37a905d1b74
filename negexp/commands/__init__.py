"""The commands: one module each. Its docstring is the command's line of help, its `COMMAND` says everything else."""

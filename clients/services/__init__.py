"""The services of the core, a module each: the paths and types of its RPCs, and a typed method for every one."""

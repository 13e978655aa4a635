"""One module a command; each offers a typed function called `command`."""

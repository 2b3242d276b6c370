"""Start servers, log test users in, generate load, read processor time."""

"""What must hold when things break: real servers, real load, real faults."""

"""The private mongod: starting, keeping and stopping it."""

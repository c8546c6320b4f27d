"""SpikingJelly's model zoo, built, converted and counted."""

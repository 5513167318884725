"""Commands that prove or check a property of the system."""

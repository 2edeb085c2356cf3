"""Tables made of records."""

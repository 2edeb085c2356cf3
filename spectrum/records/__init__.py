"""Records as data: their schema, and files that are written whole or not at all. Knows not how a record was made."""

"""Run folders: their config and schema, writing, reading and finding them."""

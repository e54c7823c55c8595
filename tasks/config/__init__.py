"""What the user asks for: composition by Hydra, and the schema that checks it."""

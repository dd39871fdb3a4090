"""The user's hand: rules in one small YAML file, and a table held to them."""
